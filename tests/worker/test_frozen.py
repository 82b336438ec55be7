"""A worker that stands still for longer than its lease: another one has its runs, and it leaves them alone."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from counting import Counting, container_starts
from looks import all_ended, attempts_become, lines_of, states_of
from reach import containers_of, first_line, until
from workers import StartWorker

from prefect_jobs import Job, JobRun

# Longer than it takes to give up one who stands still.
COUNTING = Counting(lines=90, pause=0.5, exit_code=3)
GIVEN_UP_SECONDS = 35.0


async def test_a_worker_that_stood_still_leaves_its_runs_to_whoever_took_them_over(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    frozen = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    await job.apply(work_pool=pool)
    async with container_starts(pool) as starts:
        runs: list[JobRun] = [await job.run() for _ in range(2)]
        await asyncio.gather(*map(first_line, runs))
        owner = {(await run.refresh()).flow_run.infrastructure_pid for run in runs}
        other = await start_worker("--limit=2")
        frozen.signal(signal.SIGSTOP)

        async def taken_over() -> bool:
            return owner.isdisjoint([(await run.refresh()).flow_run.infrastructure_pid for run in runs])

        await until(taken_over, GIVEN_UP_SECONDS, "both runs taken over")
        frozen.signal(signal.SIGCONT)
        await frozen.says("Another supervisor has given this one up and taken over its 2 runs", 20)
        # The other one is full: it is the one that had stood still who takes this.
        short: JobRun = await job.run(command=["sh", "-c", "echo new"])
        await all_ended([short], 30)
        assert (short.state, await lines_of([short])) == ("Completed", [["new"]])
        await all_ended(runs, 120)
    assert [[(each.attempt, each.exit_code) for each in run.attempts] for run in runs] == [[(1, 3)]] * 2
    assert await lines_of(runs) == [COUNTING.expected] * 2
    assert starts == {str(run.id): 1 for run in [*runs, short]}
    assert [containers_of(run.id) for run in runs] == [[]] * 2
    for run in runs:
        names = Counter(state.name for state in await states_of(run.id))
        assert names == {"Scheduled": 1, "Pending": 1, "Running": 2, "Reattaching": 1, "Failed": 1}
        ends = {("attempt 1", "Failed"): 1}
        await attempts_become(run.id, {**ends, ("attempt 1", "Crashed"): 1})
    assert "Traceback" not in frozen.said + other.said
