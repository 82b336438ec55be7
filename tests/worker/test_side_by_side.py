"""Several workers of one pool: each run is begun once, whoever asks for it at the same moment.

PREFECT_JOBS_WORKER_RUNS=200 makes that many short runs; the suite makes a few.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest
from counting import container_starts
from looks import all_ended, states_of
from reach import containers_of
from workers import StartWorker

from prefect_jobs import Job, JobRun

RUNS = int(os.environ.get("PREFECT_JOBS_WORKER_RUNS", "16"))


@pytest.mark.timeout(0)
async def test_two_workers_that_start_in_the_same_moment_share_the_runs_and_begin_each_once(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    job = Job(name=pool, infrastructure="docker", image=busybox, command=["sh", "-c", "echo once; sleep 0.5"])
    first = await start_worker(name="makes-the-pool")
    await first.stop()
    await job.apply(work_pool=pool)
    async with container_starts(pool) as starts:
        runs: list[JobRun] = list(await asyncio.gather(*(job.run() for _ in range(RUNS))))
        await asyncio.gather(start_worker("--limit=4"), start_worker("--limit=4"))
        await all_ended(runs, 120 + 2 * RUNS)
    assert Counter(run.state for run in runs) == {"Completed": RUNS}
    assert starts == {str(run.id): 1 for run in runs}
    begun = [Counter(state.name for state in await states_of(run.id))["Running"] for run in runs]
    assert begun == [1] * RUNS
    owners = Counter(run.flow_run.infrastructure_pid for run in runs)
    assert len(owners) == 2, owners
    assert min(owners.values()) >= RUNS / 6, owners
    assert [containers_of(run.id) for run in runs] == [[]] * RUNS
