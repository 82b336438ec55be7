"""A checkpoint that a job keeps is whole wherever its name leads to, whoever was interrupted."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.states import Scheduled
from ran import Execute, Ran, ran

from prefect_jobs import Job, JobRun, ObjectStore

Deploy = Callable[..., Awaitable[Job]]
Start = Callable[..., Awaitable[Ran]]
COUNTS = "cd $JOB_CHECKPOINT_DIR; cat step 2>/dev/null; echo $JOB_RUN_NAME.$JOB_ATTEMPT >> step"


def last(bucket: Path, job: Job) -> Path:
    """Where the job's last checkpoint is."""
    return bucket / str(json.loads((bucket / job.name / "checkpoint.json").read_text())["prefix"])


async def again(execute: Execute, run: JobRun) -> Ran:
    """A person starts a run once more."""
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
    await run.refresh()
    return await ran(execute, run)


async def test_a_run_that_is_started_again_begins_with_its_own(deploy: Deploy, start: Start, execute: Execute) -> None:
    job = await deploy(f"{COUNTS}; test $JOB_ATTEMPT -gt 2", checkpoint="job", retries=1)
    first = await start(job, run_name="a")
    assert (first.codes, first.lines) == ([1, 1], ["a.1"])
    await start(job, run_name="b")
    more = await again(execute, first.run)
    assert (more.codes, more.lines) == ([1, 1, 0], ["a.1", "a.1", "a.2"])


async def test_only_the_last_attempts_is_there_and_named(deploy: Deploy, start: Start, bucket: Path) -> None:
    job = await deploy(f"{COUNTS}; test $JOB_ATTEMPT = 3", checkpoint="job", retries=2)
    done = await start(job, run_name="a")
    place = last(bucket, job)
    assert place == bucket / job.name / str(done.run.id) / "checkpoint" / "3"
    assert (place / "step").read_text() == "a.1\na.2\na.3\n"
    assert {path.name for path in place.parent.iterdir() if path.is_file() or any(path.iterdir())} == {"3", "3.json"}


async def test_a_half_written_one_leaves_the_job_with_the_one_before(
    deploy: Deploy, start: Start, block: ObjectStore
) -> None:
    job = await deploy(COUNTS, checkpoint="job")
    first = await start(job, run_name="a")
    # As a supervisor leaves it that dies on the way: a later attempt's files, and nothing that names them.
    async with block.open() as store:
        await store.write(f"{job.name}/{first.run.id}/checkpoint/2/step", b"half")
    assert (await start(job, run_name="b")).lines == ["a.1"]


async def test_a_job_whose_last_checkpoint_was_removed_begins_without_one(
    deploy: Deploy, start: Start, block: ObjectStore
) -> None:
    job = await deploy(COUNTS, checkpoint="job")
    first = await start(job, run_name="a")
    async with block.open() as store:
        await store.delete(f"{job.name}/{first.run.id}/checkpoint")
    lost = await start(job, run_name="b")
    assert lost.lines == []
    assert any("begins without one" in words for words in lost.told)
    assert (await start(job, run_name="c")).lines == ["b.1"]
