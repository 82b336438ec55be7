"""What a run left in its store: named by its manifest, and downloaded with its checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.loading import load_store
from prefect_jobs.blocks.store import Store
from prefect_jobs.deployed import DeployedJob
from prefect_jobs.deployments.kinds import kind_of
from prefect_jobs.deployments.runs import JobRun, find_run
from prefect_jobs.errors import NoSuchObject, NotFoundError
from prefect_jobs.flows.stored import read_manifest
from prefect_jobs.job import Job
from prefect_jobs.manifest import Manifest
from prefect_jobs.storage import run_key


async def outputs_of(
    client: PrefectClient, reference: str, download: Path | None, tell: Tell
) -> tuple[str, list[dict[str, Any]]]:
    """Where the outputs of a run are, and each with its size and checksum; downloaded to a folder where one is given.

    Raises:
        NotFoundError: there is no such run, it is none of a job, its job keeps nothing, or it has not ended.
        StoreError: the store refuses, or what it has is not what the run wrote.
    """
    run = await find_run(client, reference)
    job = _job_of(run, reference)
    assert job.state is not None
    async with (await load_store(job.state.block)).open() as store:
        manifest = await _manifest(store, job, run)
        prefix = run_key(job.name, run.id, "output")
        if download is not None and manifest.files:
            await store.download(prefix, download, manifest, tell)
        rows = [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in manifest.files]
        return store.uri(prefix), rows


def _job_of(run: JobRun, reference: str) -> Job:
    if run.is_pipeline:
        raise NotFoundError(
            f"run {reference!r} is one of a pipeline, which keeps no outputs of its own: the runs of its steps have "
            f"them, and 'prefect-jobs show {run.id}' lists those"
        )
    if kind_of(run.flow_run.parameters) != DeployedJob.kind:
        raise NotFoundError(f"run {reference!r} is none of a job; 'prefect-jobs runs' shows the latest of those")
    job = DeployedJob.model_validate(run.flow_run.parameters[DeployedJob.kind]).template
    if job.state is None:
        raise NotFoundError(
            f"run {reference!r} of job {job.name!r} keeps no outputs: the job has no store; give it one (store: NAME), "
            "apply it and start it again"
        )
    return job


async def _manifest(store: Store, job: Job, run: JobRun) -> Manifest:
    try:
        return await read_manifest(store, run_key(job.name, run.id))
    except NoSuchObject as error:
        state = run.flow_run.state
        if state is None or not state.is_final():
            why = f"it is {run.state}, and they are kept when an attempt has ended"
        elif state.is_completed():
            why = "they were kept, and are gone from the store"
        else:
            why = f"it ended {run.state} before they could be kept; 'prefect-jobs show {run.id}' says why"
        raise NotFoundError(
            f"the outputs of run {run.name} of job {job.name!r} are not there: {why} ({error})"
        ) from error
