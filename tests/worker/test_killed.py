"""A worker that dies: the pool's next one, or the one beside it, goes on with its runs as if nothing had happened.

PREFECT_JOBS_WORKER_KILLS=100 lets a worker die with that many containers running; the suite has a few.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

import pytest
from counting import Counting, container_starts
from looks import all_are, all_ended, attempts_become, attempts_running, lines_of, now, states_of
from prefect.client.schemas.objects import FlowRun
from reach import containers_of, first_line, until
from workers import StartWorker

from prefect_jobs import Job, JobRun

RUNS = int(os.environ.get("PREFECT_JOBS_WORKER_KILLS", "6"))
# Longer than it takes to begin all, and for the next worker to come and find them.
COUNTING = Counting(lines=70 + 2 * RUNS, pause=0.5, exit_code=3)
ADOPTION_SECONDS = 30.0


def is_running(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_running()


async def begun(runs: list[JobRun]) -> None:
    """Wait until each container writes, and until Prefect has had the event of each attempt."""
    await all_are(runs, is_running, 60 + 2 * len(runs), "all runs begun")
    await asyncio.gather(*map(first_line, runs[-3:]))

    async def all_there() -> bool:
        return all([await asyncio.to_thread(containers_of, run.id) for run in runs])

    await until(all_there, 60, "all containers")

    async def all_known() -> bool:
        return await attempts_running(runs) == len(runs)

    await until(all_known, 60 + len(runs), "all attempts known to Prefect")


async def adopted(runs: list[JobRun], since: float) -> float:
    """Seconds until all runs have been Running once more; some may have ended since."""
    await all_are(runs, lambda run: run.run_count >= 2, ADOPTION_SECONDS + RUNS, "all runs taken over")
    return time.monotonic() - since


async def look_whole(runs: list[JobRun], starts: Counter[str], doubly: set[JobRun]) -> None:
    """All runs ended as their only container did, and nothing of them was lost or doubled."""
    await all_ended(runs, 120 + 3 * len(runs))
    assert Counter(run.state for run in runs) == {"Failed": len(runs)}
    assert [[(each.attempt, each.exit_code) for each in run.attempts] for run in runs] == [[(1, 3)]] * len(runs)
    assert await lines_of(runs) == [COUNTING.expected] * len(runs)
    assert starts == {str(run.id): 1 for run in runs}
    assert [containers_of(run.id) for run in runs] == [[]] * len(runs)
    for run in runs:
        crashed = {("attempt 1", "Crashed"): 1} if run in doubly else {}
        await attempts_become(run.id, {("attempt 1", "Failed"): 1, **crashed})
        names = Counter(state.name for state in await states_of(run.id))
        assert names["Running"] == 1 + (run in doubly), (run, names)
        assert names.keys().isdisjoint({"AwaitingRetry", "Retrying", "Crashed"}), (run, names)


@pytest.mark.timeout(0)
async def test_runs_of_a_worker_that_was_killed_go_on_under_the_next_as_if_nothing_had_happened(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    await job.apply(work_pool=pool)
    async with container_starts(pool) as starts:
        runs = list(await asyncio.gather(*(job.run() for _ in range(RUNS))))
        await begun(runs)
        await worker.kill()
        await start_worker()
        took = await adopted(runs, time.monotonic())
        print(f"{RUNS} runs taken over {took:.1f} s after the next worker said that it had started")
        await look_whole(runs, starts, set(runs))
    assert took < ADOPTION_SECONDS


@pytest.mark.timeout(0)
async def test_of_two_workers_side_by_side_one_takes_over_the_runs_of_the_other_that_was_killed(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    half = RUNS // 2
    dying, _ = await asyncio.gather(start_worker(f"--limit={half}"), start_worker(f"--limit={RUNS - half}"))
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    await job.apply(work_pool=pool)
    async with container_starts(pool) as starts:
        runs = list(await asyncio.gather(*(job.run() for _ in range(RUNS))))
        await begun(runs)
        owners = {run.id: run.infrastructure_pid for run in await now(runs)}
        shares = Counter(owners.values())
        assert sorted(shares.values()) == [half, RUNS - half]
        killed = time.monotonic()
        await dying.kill()

        async def one_has_all() -> bool:
            return len({run.infrastructure_pid for run in await now(runs)}) == 1

        await until(one_has_all, ADOPTION_SECONDS + RUNS, "one worker has all")
        took = time.monotonic() - killed
        print(f"{dict(shares)}; taken over within {took:.1f} s")
        there = {run.id: run.infrastructure_pid for run in await now(runs)}
        moved = {run for run in runs if there[run.id] != owners[run.id]}
        await look_whole(runs, starts, moved)
    assert took < ADOPTION_SECONDS


async def test_a_run_within_a_limit_takes_its_place_anew_and_the_one_behind_it_follows(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    counting = Counting(lines=40, pause=0.5, exit_code=0)
    worker = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=counting.command, concurrency=1)
    await job.apply(work_pool=pool)
    async with container_starts(pool) as starts:
        first: JobRun = await job.run()
        await begun([first])
        second: JobRun = await job.run(command=["sh", "-c", "echo second"])
        await worker.kill()
        await start_worker()
        await adopted([first], time.monotonic())
        assert not (await second.refresh()).flow_run.state.is_running()
        await all_ended([first, second], 200)
    assert [first.state, second.state] == ["Completed", "Completed"]
    assert await lines_of([first, second]) == [counting.expected, ["second"]]
    assert starts == {str(first.id): 1, str(second.id): 1}
    ran = [[state.timestamp for state in await states_of(run.id)] for run in (first, second)]
    begins = [state.timestamp for state in await states_of(second.id) if state.is_running()]
    assert len(begins) == 1
    assert begins[0] >= ran[0][-1]
