"""Floor 3: how a template becomes a deployment, and how people and workers reach it.

Applying, the run form, schedules, handles of runs, the command line, the demo. Nothing here runs a container: that is
what the flow does, wherever a worker runs it.
"""
