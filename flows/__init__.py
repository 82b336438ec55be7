"""Floor 2: what a run does. One flow for a job run.

The flows know infrastructures by their contract and Prefect by its flow and task engines. They run alike under every
worker, and never make, change or look for a deployment.
"""
