"""Floor 1: where a container runs and where its state lives. Prefect blocks and the engines behind them.

Imported by Prefect when it looks for collections, so importing it is cheap: engines are imported when they are used.
Nothing here knows flows or deployments, and nothing decides what becomes of a run.
"""

from importlib.util import find_spec

from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.blocks.process import Process

__all__ = ["ObjectStore", "Process"]

if find_spec("prefect_docker") is not None:
    from prefect_jobs.blocks.docker import Docker as Docker

    __all__ += ["Docker"]
