"""What Prefect finds of this project when it looks for collections: the blocks, and the worker type.

It is imported by every command of Prefect, so importing it must stay cheap.
"""

from prefect_jobs.blocks import *  # noqa: F403
from prefect_jobs.deployments.worker import JobsWorker as JobsWorker
