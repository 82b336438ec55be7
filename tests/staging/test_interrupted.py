"""Whoever dies while a run's state is on its way: what is in the store is whole, or is not named by any manifest."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from reach import containers_of, first_line, until
from supervisors import kill, start_supervisor, supervise

from prefect_jobs import Job, JobRun
from prefect_jobs.manifest import Manifest
from prefect_jobs.outcome import Reason

FILES = 1500
NAMES = {"attempt", *map(str, range(1, FILES + 1))}
MAKES_FILES = f"cd $JOB_OUTPUT_DIR; for i in $(seq {FILES}); do echo > $i; done; echo $JOB_ATTEMPT > attempt; echo up"


async def uploading(
    deploy: Callable[..., Awaitable[Job]], bucket: Path
) -> tuple[JobRun, Path, asyncio.subprocess.Process]:
    """A run whose outputs are on their way, where they go, and its supervisor."""
    job = await deploy(MAKES_FILES)
    run: JobRun = await job.run()
    place = bucket / job.name / str(run.id)
    supervisor = await start_supervisor(run)

    async def is_half_way() -> bool:
        return len(list((place / "output").glob("*"))) > FILES // 10

    await until(is_half_way, 60, "the upload is on its way")
    return run, place, supervisor


async def test_a_supervisor_that_dies_while_it_uploads_leaves_the_rest_to_the_next_one(
    deploy: Callable[..., Awaitable[Job]], bucket: Path
) -> None:
    run, place, supervisor = await uploading(deploy, bucket)
    await kill(supervisor)
    assert not (place / "manifest.json").exists()
    assert len(list((place / "output").glob("[0-9]*"))) < FILES

    await supervise(run)
    await run.refresh()
    assert (run.state, [attempt.attempt for attempt in run.attempts]) == ("Completed", [1])
    manifest = Manifest.model_validate_json((place / "manifest.json").read_text())
    assert {file.name for file in manifest.files} == NAMES
    assert {path.name for path in (place / "output").iterdir()} == NAMES
    assert (place / "output" / "attempt").read_text() == "1\n"
    assert len((place / "log.txt").read_text().splitlines()) == 1


async def test_a_run_that_is_cancelled_while_it_uploads_names_nothing_that_is_not_there(
    deploy: Callable[..., Awaitable[Job]], bucket: Path
) -> None:
    run, place, supervisor = await uploading(deploy, bucket)
    await run.cancel()
    async with asyncio.timeout(60):
        await supervisor.wait()
    await run.refresh()
    assert run.state == "Cancelled"
    # It may have been done just before it was told.
    if (place / "manifest.json").exists():
        assert {path.name for path in (place / "output").iterdir()} == NAMES


async def test_a_container_that_somebody_removes_while_it_runs_is_lost_and_another_attempt_follows(
    deploy: Callable[..., Awaitable[Job]], setting: str
) -> None:
    if setting.startswith("process"):
        pytest.skip("nobody removes a process and its folder while it runs")
    job = await deploy(
        "echo $JOB_ATTEMPT > $JOB_OUTPUT_DIR/attempt; echo up; [ $JOB_ATTEMPT = 2 ] || sleep 60",
        retries={"infrastructure": 1},
    )
    run: JobRun = await job.run()
    supervisor = await start_supervisor(run)
    await first_line(run)
    subprocess.run(["docker", "rm", "--force", *containers_of(run.id)], check=True, capture_output=True)
    async with asyncio.timeout(90):
        await supervisor.wait()
    await run.refresh()
    assert [outcome.reason for outcome in run.attempts] == [Reason.LOST, Reason.SUCCEEDED]
    assert run.state == "Completed"
