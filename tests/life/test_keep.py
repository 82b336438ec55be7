"""A failed container may be kept for a look, and goes when its time is over."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from ran import Execute, Ran, deployed, ran

from prefect_jobs import Job
from prefect_jobs.blocks.engine import Found
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.flows.sweep import sweep_all
from prefect_jobs.quantities import Duration
from prefect_jobs.spec import Identity

pytestmark = pytest.mark.usefixtures("sweeping_alone")


@pytest.fixture(params=["process", "docker"])
def infrastructure(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def _job(infrastructure: str, image: str, script: str, keep: str) -> Job:
    name = f"kept-{uuid4().hex[:8]}"
    return await deployed(
        name, infrastructure=infrastructure, image=image, command=["sh", "-c", script], keep=keep, retries=1
    )


async def _there(infrastructure: str, run_id: UUID) -> list[Found]:
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        return [found for found in await engine.containers() if found.run_id == run_id]


async def _sweep(infrastructure: str) -> set[UUID]:
    async with get_client() as client:
        done = await sweep_all(client, [infrastructure], older_than=Duration(0))
    return {swept.run_id for swept in done.removed}


async def test_a_failed_attempt_is_kept_and_said_where_and_a_sweep_leaves_it(
    infrastructure: str, busybox: str, execute: Execute
) -> None:
    job = await _job(infrastructure, busybox, '[ "$JOB_ATTEMPT" = 2 ]', "1h")
    done: Ran = await ran(execute, await job.run())
    (found,) = await _there(infrastructure, done.run.id)
    assert (found.attempt, found.running, found.is_kept) == (1, False, True)
    place = f"attempt-{found.attempt}" if infrastructure == "process" else f"prefect-jobs-{done.run.id}-1"
    assert any(line.startswith("Kept for a look, for 3600 s from its end: ") and place in line for line in done.told)
    assert done.run.id not in await _sweep(infrastructure)
    assert await _there(infrastructure, done.run.id) == [found]
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        identity = Identity(job=job.name, version="", run_id=done.run.id, run_name="", attempt=1)
        await engine.discard(identity)
        await engine.release(done.run.id)


async def test_it_goes_when_its_time_is_over_with_a_sweep_or_when_such_a_job_runs_again(
    infrastructure: str, busybox: str, execute: Execute
) -> None:
    job = await _job(infrastructure, busybox, "exit 3", "6s")
    first = (await ran(execute, await job.run())).run.id
    assert 2 in [found.attempt for found in await _there(infrastructure, first)]
    await asyncio.sleep(6.1)
    second = (await ran(execute, await job.run())).run.id
    await asyncio.sleep(6.1)
    swept = await _sweep(infrastructure)
    assert first not in swept, "the second run removed it"
    assert second in swept
    for run_id in (first, second):
        assert await _there(infrastructure, run_id) == []
        async with (await load_infrastructure(infrastructure)).engine() as engine:
            assert run_id not in await engine.runs()
