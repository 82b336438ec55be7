"""A started run that is cancelled hears of it within two seconds, by events, and where there are none soon after."""

from __future__ import annotations

import asyncio
import time

import pytest
from cancelling import GRACE, LONG, PHASES, WAYS, Place, left_by, measure
from looks import states_of
from proxy import api_proxy
from reach import first_line
from servers import Server
from workers import StartWorker

from prefect_jobs import Job, JobRun

HONOURED_SECONDS = 2.0


async def seconds_to_stop(run: JobRun) -> float:
    """Cancel a run; seconds until its worker said that it stops the container."""
    began = time.time()
    await run.cancel()
    await run.wait()
    assert run.state == "Cancelled"
    assert left_by(run.id) == []
    [stopping] = [log.timestamp.timestamp() for log in await run.logs() if "Stopping the container" in log.message]
    cancelled = [state for state in await states_of(run.id) if state.is_cancelling()]
    return stopping - max(began, cancelled[0].timestamp.timestamp())


@pytest.mark.parametrize("infrastructure", ["docker", "process"])
async def test_a_started_run_hears_of_its_cancellation_by_an_event(
    infrastructure: str, served: str, busybox: str
) -> None:
    run = await Place(served, infrastructure, busybox).start(LONG)
    await first_line(run)
    assert await seconds_to_stop(run) < HONOURED_SECONDS


async def test_where_the_stream_of_events_is_broken_the_worker_asks(
    start_worker: StartWorker, pool: str, busybox: str, server: Server
) -> None:
    async with api_proxy(server.url) as proxy:
        await start_worker(PREFECT_API_URL=proxy.url)
        run = await Place(pool, "docker", busybox).start(LONG)
        await first_line(run)
        proxy.refuses_streams = True
        proxy.cut()
        await asyncio.sleep(1)
        assert await seconds_to_stop(run) < HONOURED_SECONDS + 2
        proxy.refuses_streams = False


@pytest.mark.parametrize(
    "phase", ["waiting_for_a_retry", "created_and_not_started", "just_ending", "behind_a_limit", "suspended"]
)
async def test_a_run_is_cancelled_in_any_phase(phase: str, served: str, busybox: str) -> None:
    async with PHASES[phase](Place(served, "docker", busybox)) as run:
        done = await measure(run, WAYS["handle"])
    ended_by_itself = phase == "just_ending" and done.state == "Completed"
    assert done.state == "Cancelled" or ended_by_itself, done
    assert done.left == []
    assert done.gone < GRACE + 5, done


async def test_a_run_that_is_cancelled_while_its_worker_is_dead_is_ended_by_the_next(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker()
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    job = Job(name=pool, infrastructure="docker", image=busybox, command=["sh", "-c", script], grace_period="5s")
    await job.apply(work_pool=pool)
    run: JobRun = await job.run()
    await first_line(run)
    await worker.kill()
    await run.cancel()
    assert (await run.refresh()).state == "Cancelling"
    await start_worker()
    async with asyncio.timeout(30):
        await run.wait()
    assert run.state == "Cancelled"
    assert left_by(run.id) == []
