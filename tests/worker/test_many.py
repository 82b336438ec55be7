"""Hundreds of runs at once in one worker: what each costs, and that none holds up the others.

PREFECT_JOBS_MANY=500 is what the worker promises; the suite has fewer, and other tests beside it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from looks import all_ended
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from session import root
from workers import StartWorker, Worker

from prefect_jobs import Job, JobRun

MANY = int(os.environ.get("PREFECT_JOBS_MANY", "24"))
ALONE = "PREFECT_JOBS_MANY" in os.environ
MIB = 1 << 20
# Long enough for all to have been started before the first one ends.
SLEEP = 20 + MANY // 2
CREATED_AT_ONCE = 8
# What only sleeps is late, too, where hundreds of containers want the same cores.
CONTROL = """
import time
worst = 0.0
while True:
    began = time.monotonic()
    time.sleep(0.05)
    worst = max(worst, time.monotonic() - began - 0.05)
    print(worst, flush=True)
"""


@asynccontextmanager
async def control() -> AsyncIterator[Path]:
    """A process that only sleeps; the last line of this file is by how many seconds it was late at most."""
    path = root() / "control"
    with path.open("wb") as file:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CONTROL, stdout=file)
    try:
        yield path
    finally:
        process.kill()
        await process.wait()


async def created(deployment_id: object, number: int) -> list[JobRun]:
    """Runs of a deployment, a few at a time."""
    room = asyncio.Semaphore(CREATED_AT_ONCE)

    async def one() -> JobRun:
        async with room:
            return JobRun(await client.create_flow_run_from_deployment(deployment_id))  # type: ignore[arg-type]

    async with get_client() as client:
        return list(await asyncio.gather(*(one() for _ in range(number))))


async def states_of(runs: list[JobRun]) -> Counter[str]:
    """How many of the runs are in which state, with a few requests for all."""
    states: Counter[str] = Counter()
    async with get_client() as client:
        for start in range(0, len(runs), 100):
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs[start : start + 100]]))
            sort = FlowRunSort.EXPECTED_START_TIME_ASC
            page = await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=100)
            states.update(str(run.state_name) for run in page)
    return states


async def figure(worker: Worker, name: str) -> float:
    """One of the worker's figures."""
    return (await asyncio.to_thread(worker.figures))[name]


@pytest.mark.timeout(0)
async def test_many_runs_at_once_cost_little_each_and_hold_nobody_up(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=["sleep", str(SLEEP)], grace_period="1s")
    change = await job.apply(work_pool=pool)
    warm = Job(name=f"{pool}-warm", infrastructure="docker", image=busybox, command=["true"])
    warmed = await warm.apply(work_pool=pool)
    await all_ended(await created(warmed.deployment_id, 3), 120)

    process = psutil.Process(worker.process.pid)
    base, threads, worst, most = process.memory_info().rss, process.num_threads(), 0.0, 0
    creating = asyncio.create_task(created(change.deployment_id, MANY))
    peak, more_threads, sockets = base, threads, 0
    async with asyncio.timeout(300 + 4 * MANY), control() as slept:
        while not creating.done() or await figure(worker, "runs_active"):
            worst = max(worst, await figure(worker, "loop_lag_seconds"))
            most = max(most, int(await figure(worker, "runs_active")))
            peak = max(peak, process.memory_info().rss)
            more_threads, sockets = max(more_threads, process.num_threads()), max(sockets, process.num_fds())
            await asyncio.sleep(1)
    states, any_late = await states_of(await creating), float(slept.read_text().split("\n")[-2])
    each = (peak - base) / most / MIB
    print(
        f"{MANY} runs, {most} at once: {dict(states)}; base {base / MIB:.0f} MiB, "
        f"{each:.2f} MiB each above it; the loop was late by {worst * 1000:.0f} ms at most, "
        f"and a process that only sleeps by {any_late * 1000:.0f} ms; "
        f"threads {threads} to {more_threads}, at most {sockets} open files; "
        f"CPU {sum(process.cpu_times()[:2]) / MANY:.3f} s a run"
    )
    assert states == {"Completed": MANY}
    assert most == MANY
    assert each <= (1.0 if ALONE else 3.0)
    assert more_threads <= threads + 4
    # One for the log of each container, and what all share.
    assert sockets <= 60 + 2 * MANY
    assert worst <= (0.2 if ALONE else 5.0) + any_late
