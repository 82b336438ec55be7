"""The iris example, as the tests use it."""

from __future__ import annotations

from pathlib import Path

from prefect_jobs import Job, Process, read
from prefect_jobs.deployments.demo_environment import cache_folder, make_environment

FOLDER = Path(__file__).parents[2] / "examples/iris"


def iris_job() -> Job:
    """The job 'train' of its document."""
    return next(job for job in read(FOLDER / "jobs.yaml") if job.name == "train")


async def save_process(name: str = "iris") -> None:
    """Save the process block that the document names, with an environment that has what the programs need."""
    environment = await make_environment(FOLDER / "requirements.txt", cache_folder())
    await Process(workspace=FOLDER, search_path=[str(environment / "bin")]).asave(name, overwrite=True)
