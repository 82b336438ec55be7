"""A worker says that it should be restarted when that would help, and not while only Prefect's API is away."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from proxy import ApiProxy
from reach import ended, until
from workers import worker

from prefect_jobs import Job

# So that polls have ceased when there was none for 30 times as long.
SOON = {"PREFECT_WORKER_QUERY_SECONDS": "0.1"}
WINDOW = 30 * 0.1
# A worker that is broken from outside: at one signal a step blocks the loop of its runs, at the other polls cease.
BREAKABLE = """
import asyncio, signal, sys, time
from prefect_jobs.deployments import worker

worker._HUNG_SECONDS = 2.0

class Breakable(worker.JobsWorker):
    async def setup(self):
        await super().setup()
        loop = asyncio.get_running_loop()
        runs = self._supervisor._runs._loop
        loop.add_signal_handler(signal.SIGUSR1, runs.call_soon_threadsafe, time.sleep, 8)
        loop.add_signal_handler(signal.SIGUSR2, lambda: loop.create_task(self._taking._polling.acquire()))

asyncio.run(Breakable(sys.argv[1]).start(with_healthcheck=True))
"""


@pytest.fixture
def name(prefect_api: str) -> str:
    """The name of a job and of its work pool, which no other test has."""
    return f"own-{uuid4().hex[:8]}"


@pytest.fixture
def breakable(tmp_path: Path) -> Path:
    script = tmp_path / "breakable.py"
    script.write_text(BREAKABLE)
    return script


async def test_a_worker_whose_runs_hang_is_ill_until_they_go_on(breakable: Path, name: str) -> None:
    async with worker("python", breakable, name) as started:
        await until(started.is_healthy, 20, "a worker that is well")
        started.signal(signal.SIGUSR1)
        await until(started.is_ill, 6, "a worker that is ill")
        assert "The event loop of the runs has not turned for" in started.said
        await until(started.is_healthy, 15, "a worker that is well again")


async def test_a_worker_that_polls_no_more_is_ill(breakable: Path, name: str) -> None:
    async with worker("python", breakable, name, env=SOON) as started:
        await until(started.is_healthy, 20, "a worker that is well")
        started.signal(signal.SIGUSR2)
        await until(started.is_ill, WINDOW + 10, "a worker that is ill")


async def test_a_worker_is_well_while_the_api_is_away_from_its_start_or_later(prefect_api: str, name: str) -> None:
    job = Job(name=name, command=["true"])
    await job.apply(work_pool=name)
    relay = ApiProxy(prefect_api)
    words = ("prefect-jobs", "worker", "--pool", name, "--with-healthcheck")
    async with worker(*words, env={**SOON, "PREFECT_API_URL": relay.url}) as started:
        for _ in range(2):
            for _ in range(int(WINDOW) + 4):
                await asyncio.sleep(1)
                assert await started.is_healthy(), started.said
            await relay.open()
            run = await job.run()
            await ended(run)
            assert run.state == "Completed"
            assert await started.is_healthy()
            await relay.shut()
