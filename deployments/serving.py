"""Jobs under ``prefect.serve``: run by this very process, without a worker."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.deployments.runner import RunnerDeployment

from prefect_jobs.deployments.apply import apply_all
from prefect_jobs.flows.job import FLOW_NAME, entrypoint
from prefect_jobs.job import Job


class ServedJob(RunnerDeployment):
    """A job as ``prefect.serve`` takes it: registered as `Job.apply` does, without a work pool."""

    job: Job

    async def aapply(self, *args: Any, **kwargs: Any) -> UUID:
        """Apply the job, so that serving it again changes nothing."""
        (change,) = await apply_all([self.job], work_pool=None)
        assert change.deployment_id is not None
        return change.deployment_id


def to_deployment(job: Job) -> ServedJob:
    """A deployment for ``prefect.serve(...)``."""
    return ServedJob(name=job.name, flow_name=FLOW_NAME, entrypoint=entrypoint(job.parameters), job=job)
