"""A worker that is told to end: its runs are left to the next one, waited for, or cancelled, as it was asked."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from cancelling import in_state, left_by
from counting import Counting, container_starts
from looks import all_ended, attempts_become, lines_of, states_of
from prefect.client.orchestration import get_client
from reach import first_line, until
from servers import Server
from workers import StartWorker, worker

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.worker_lease import read_leases

COUNTING = Counting(lines=40, pause=0.4, exit_code=0)
ON_STOP = "PREFECT_JOBS_ON_STOP"


async def with_runs(pool: str, job: Job, number: int = 2) -> list[JobRun]:
    """Runs whose containers have written their first line."""
    await job.apply(work_pool=pool)
    runs: list[JobRun] = [await job.run() for _ in range(number)]
    await asyncio.gather(*map(first_line, runs))
    return runs


@pytest.mark.parametrize("infrastructure", ["docker", "process"])
async def test_detached_runs_go_on_alone_and_the_next_worker_takes_them_over_at_once(
    infrastructure: str, start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker()
    # The long grace period is that of runs which have somebody wait for the end of their worker.
    job = Job(name=pool, infrastructure=infrastructure, image=busybox, command=COUNTING.command, grace_period="25s")
    async with container_starts(pool) as starts:
        runs = await with_runs(pool, job)
        began = time.monotonic()
        assert await worker.stop() == 0
        assert time.monotonic() - began < 10
        assert "2 runs go on alone" in worker.said
        assert all(left_by(run.id) for run in runs)
        assert [(await run.refresh()).state for run in runs] == ["Running"] * 2

        await start_worker()
        began = time.monotonic()

        async def taken_over() -> bool:
            return all([sum(state.is_running() for state in await states_of(run.id)) == 2 for run in runs])

        await until(taken_over, 30, "both runs taken over")
        assert time.monotonic() - began < 8
        await all_ended(runs, 90)
    assert [run.state for run in runs] == ["Completed"] * 2
    assert await lines_of(runs) == [COUNTING.expected] * 2
    assert starts == ({str(run.id): 1 for run in runs} if infrastructure == "docker" else {})
    assert [left_by(run.id) for run in runs] == [[]] * 2


async def test_a_worker_that_waits_ends_when_its_runs_have_and_takes_no_more(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker(**{ON_STOP: "wait"})
    job = Job(name=pool, infrastructure="docker", image=busybox, command=Counting(20, 0.4, 0).command)
    runs = await with_runs(pool, job)
    worker.signal(signal.SIGTERM)
    await asyncio.sleep(1)
    later: JobRun = await job.run()
    assert await worker.ended(60) == 0
    assert [(await run.refresh()).state for run in runs] == ["Completed"] * 2
    assert await lines_of(runs) == [Counting(20, 0.4, 0).expected] * 2
    assert (await later.refresh()).state == "Scheduled"
    await start_worker()
    await all_ended([later], 60)
    assert later.state == "Completed"


async def test_a_worker_that_waits_leaves_its_runs_when_it_is_told_once_more(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker(**{ON_STOP: "wait"})
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    runs = await with_runs(pool, job)
    worker.signal(signal.SIGTERM)
    with pytest.raises(AssertionError):
        await worker.ended(4)
    began = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - began < 10
    assert [(await run.refresh()).state for run in runs] == ["Running"] * 2
    await start_worker()
    await all_ended(runs, 90)
    assert [run.state for run in runs] == ["Completed"] * 2
    assert await lines_of(runs) == [COUNTING.expected] * 2


async def test_a_worker_that_waits_ends_though_another_has_taken_its_runs_over(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker(**{ON_STOP: "wait"})
    await with_runs(pool, Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command))
    other = await start_worker()
    worker.signal(signal.SIGTERM)
    await asyncio.sleep(1)
    worker.signal(signal.SIGSTOP)
    await other.says("Taken over from supervisor", 60)
    worker.signal(signal.SIGCONT)
    assert await worker.ended(20) == 0
    assert "has given this one up" in worker.said


async def test_a_worker_that_cancels_ends_when_nothing_of_its_runs_is_left(
    start_worker: StartWorker, pool: str, busybox: str
) -> None:
    worker = await start_worker(**{ON_STOP: "cancel"})
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    job = Job(name=pool, infrastructure="docker", image=busybox, command=["sh", "-c", script], grace_period="5s")
    runs = await with_runs(pool, job)
    assert await worker.stop() == 0
    assert [(await run.refresh()).state for run in runs] == ["Cancelled"] * 2
    said = "cancelled because its worker was told to stop; no container of it is left"
    assert [run.flow_run.state and run.flow_run.state.message for run in runs] == [said] * 2
    assert [left_by(run.id) for run in runs] == [[]] * 2
    assert [[line for line in lines if line != "Terminated"] for lines in await lines_of(runs)] == [["up", "bye"]] * 2
    for run in runs:
        await attempts_become(run.id, {("attempt 1", "Cancelled"): 1})


# Workers that are told once more while they wait for the claims on their way, or for what they are taking over.
CLOSING = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_taking

close = worker_taking.Taking.close

async def slowly(self):
    print("closing", flush=True)
    await asyncio.sleep(5)
    await close(self)

worker_taking.Taking.close = slowly
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""
LOOKING = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_adoption, worker_supervisor

look = worker_adoption.Adoption.look

async def slowly(self, *args):
    await look(self, *args)
    await asyncio.sleep(6)

worker_adoption.Adoption.look = slowly
worker_supervisor._LOOK_SECONDS = 0.0
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


@pytest.mark.parametrize("script", [CLOSING, LOOKING], ids=["closing", "looking"])
async def test_a_worker_that_is_told_once_more_at_once_leaves_its_runs_all_the_same(
    script: str, pool: str, server: Server, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(script)
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    await job.apply(work_pool=pool)
    async with worker("python", tmp_path / "slow.py", pool, env={**server.environment, ON_STOP: "wait"}) as there:
        [run] = await with_runs(pool, job, 1)
        there.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        began = time.monotonic()
        await there.stop()
        assert time.monotonic() - began < 10
        assert "1 runs go on alone" in there.said
        assert left_by(run.id)
    async with get_client() as client:
        assert [seen for seen in (await read_leases(client)).values() if seen.holder.pool == pool] == []


async def test_an_unknown_word_for_stopping_is_refused_when_the_worker_starts(
    start_worker: StartWorker, pool: str
) -> None:
    worker = await start_worker(seconds=0, **{ON_STOP: "kill"})
    assert await worker.ended(60) != 0
    assert "PREFECT_JOBS_ON_STOP is 'kill': expected detach, wait, cancel" in worker.said


# A worker that takes runs and begins none.
HALTING = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_runs

async def never(*_):
    await asyncio.Event().wait()

worker_runs.Runs._run_flow = never
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


@pytest.fixture
def halting(tmp_path: Path) -> Path:
    script = tmp_path / "halting.py"
    script.write_text(HALTING)
    return script


async def test_runs_that_were_taken_and_not_begun_are_handed_back(
    start_worker: StartWorker, pool: str, server: Server, halting: Path
) -> None:
    job = Job(name=pool, command=["sh", "-c", "echo once"])
    await job.apply(work_pool=pool)
    async with worker("python", halting, pool, env=server.environment) as first:
        runs: list[JobRun] = list(await asyncio.gather(*(job.run() for _ in range(5))))
        await asyncio.gather(*(in_state(run, "Pending") for run in runs))
        # Another one that begins none takes over what the first never gave back.
        await first.kill()
        async with worker("python", halting, pool, env=server.environment) as second:
            await asyncio.gather(*(in_state(run, "Reattaching") for run in runs))
            later: JobRun = await job.run()
            await in_state(later, "Pending")
            await second.stop()
    assert {(await run.refresh()).state for run in [*runs, later]} == {"Scheduled"}
    await start_worker()
    await all_ended([*runs, later], 120)
    assert [run.state for run in [*runs, later]] == ["Completed"] * 6
    assert await lines_of([*runs, later]) == [["once"]] * 6


# A worker that takes runs, and to which each answer is lost; it does not look for such runs.
DEAF = """
import asyncio, sys
import httpx
from prefect_jobs.deployments import worker, worker_supervisor, worker_taking

propose_state = worker_taking.propose_state

async def unheard(*args):
    await propose_state(*args)
    print("claimed", flush=True)
    raise httpx.ReadError("")

worker_taking.propose_state = unheard
async def blind(*_):
    pass

worker_supervisor.Supervisor._look = blind
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


@pytest.mark.parametrize("how", ["wait", "detach"])
async def test_a_run_whose_claim_got_no_answer_is_handed_back(
    how: str, pool: str, server: Server, tmp_path: Path
) -> None:
    script = tmp_path / "deaf.py"
    script.write_text(DEAF)
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    async with worker("python", script, pool, env={**server.environment, ON_STOP: how}) as deaf:
        run: JobRun = await job.run()
        await deaf.says("claimed")
        await in_state(run, "Pending")
        await deaf.stop()
    assert (await run.refresh()).state == "Scheduled"


async def test_a_run_that_had_begun_before_it_was_taken_over_is_not_handed_back_to_be_begun_anew(
    start_worker: StartWorker, pool: str, server: Server, busybox: str, halting: Path
) -> None:
    first = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=COUNTING.command)
    async with container_starts(pool) as starts:
        [run] = await with_runs(pool, job, 1)
        await first.kill()
        async with worker("python", halting, pool, env=server.environment) as second:
            await in_state(run, "Reattaching", seconds=30)
            await second.stop()
        assert (await run.refresh()).state == "Reattaching"
        await start_worker()
        await all_ended([run], 90)
    assert (run.state, await lines_of([run])) == ("Completed", [COUNTING.expected])
    assert starts == {str(run.id): 1}


# A worker that takes runs over one at a time, and slowly.
SLOW = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_adoption

take = worker_adoption.Adoption._take

async def slowly(self, client, lease, run_id, owner):
    taken = await take(self, client, lease, run_id, owner)
    print("taken", run_id, flush=True)
    await asyncio.sleep(30)
    return taken

worker_adoption.Adoption._take = slowly
worker_adoption._AT_ONCE = 1
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


async def test_a_takeover_that_is_broken_off_by_the_end_of_its_worker_is_gone_on_with_by_the_next(
    start_worker: StartWorker, pool: str, server: Server, busybox: str, tmp_path: Path
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    first = await start_worker()
    job = Job(name=pool, infrastructure="docker", image=busybox, command=Counting(80, 0.4, 0).command)
    async with container_starts(pool) as starts:
        runs = await with_runs(pool, job, 3)
        await first.kill()
        async with worker("python", script, pool, env=server.environment) as slow:
            await slow.says("taken ", 30)
            began = time.monotonic()
            await slow.stop()
            assert time.monotonic() - began < 20
            assert slow.said.count("taken ") == 1
        async with get_client() as client:
            # Nothing says that somebody takes them over.
            assert [seen for seen in (await read_leases(client)).values() if seen.holder.pool == pool] == []
        await start_worker()

        async def taken_over() -> bool:
            return all([sum(state.is_running() for state in await states_of(run.id)) >= 2 for run in runs])

        await until(taken_over, 15, "all runs taken over")
        await all_ended(runs, 120)
    assert [run.state for run in runs] == ["Completed"] * 3
    assert await lines_of(runs) == [Counting(80, 0.4, 0).expected] * 3
    assert starts == {str(run.id): 1 for run in runs}
