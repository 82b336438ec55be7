"""Which runs a worker takes, and when: limits, queues and their priorities, schedules, runs that it cannot run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from cancelling import in_state, left_by
from looks import all_ended, lines_of, states_of
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled
from reach import first_line, runs_of, until
from session import root
from workers import StartWorker

from prefect_jobs import Job, JobRun, Schedule

BRIEF = ["sh", "-c", "echo begins; sleep 2"]


async def applied(pool: str, served: str | None = None, **keys: object) -> Job:
    """A job that is called as its pool is, unless that is the one that all tests share."""
    job = Job.model_validate({"name": pool, "command": BRIEF, **keys})
    await job.apply(work_pool=served or pool)
    return job


async def spans(runs: list[JobRun]) -> list[tuple[datetime, datetime]]:
    """When each run began and ended."""
    found = []
    for run in runs:
        states = await states_of(run.id)
        found.append((next(state.timestamp for state in states if state.is_running()), states[-1].timestamp))
    return found


async def most_at_once(runs: list[JobRun]) -> int:
    """The most runs that were running at one time."""
    all_spans = await spans(runs)
    return max(sum(begin <= moment < end for begin, end in all_spans) for moment, _ in all_spans)


async def begin_of(run: JobRun) -> datetime:
    return (await spans([run]))[0][0]


async def test_no_more_runs_than_its_limit_are_at_work_at_once(start_worker: StartWorker, pool: str) -> None:
    await start_worker("--limit=2")
    job = await applied(pool)
    runs: list[JobRun] = [await job.run() for _ in range(5)]
    await all_ended(runs, 60)
    assert [run.state for run in runs] == ["Completed"] * 5
    assert await most_at_once(runs) == 2


async def test_no_more_runs_than_the_pools_limit_are_at_work_at_once(start_worker: StartWorker, pool: str) -> None:
    await asyncio.gather(start_worker(), start_worker())
    async with get_client() as client:
        await client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=2))
    job = await applied(pool)
    runs: list[JobRun] = [await job.run() for _ in range(5)]
    await all_ended(runs, 60)
    assert [run.state for run in runs] == ["Completed"] * 5
    assert await most_at_once(runs) <= 2


async def test_no_more_runs_than_the_jobs_limit_are_at_work_at_once(served: str, pool: str) -> None:
    job = await applied(pool, served, concurrency=1)
    runs: list[JobRun] = [await job.run() for _ in range(2)]
    await all_ended(runs, 120)
    assert [run.state for run in runs] == ["Completed"] * 2
    assert await most_at_once(runs) == 1


async def test_a_run_beyond_a_limit_that_refuses_is_cancelled(served: str, pool: str) -> None:
    job = await applied(pool, served, concurrency={"limit": 1, "beyond": "refuse"}, command=["sleep", "10"])
    first: JobRun = await job.run()
    await in_state(first, "Running")
    second: JobRun = await job.run()
    await all_ended([first, second], 60)
    assert [first.state, second.state] == ["Completed", "Cancelled"]


async def test_queues_are_taken_by_their_priorities_and_a_worker_may_have_some_only(
    start_worker: StartWorker, pool: str
) -> None:
    await (await start_worker()).stop()
    async with get_client() as client:
        for priority, name in ((1, "urgent"), (2, "usual"), (3, "elsewhere")):
            await client.create_work_queue(name=name, work_pool_name=pool, priority=priority)
        job = await applied(pool)
        deployment = await client.read_deployment_by_name(f"job/{pool}")

        async def at(queue: str) -> JobRun:
            return JobRun(await client.create_flow_run_from_deployment(deployment.id, work_queue_name=queue))

        usual = [await at("usual") for _ in range(2)]
        elsewhere = await at("elsewhere")
        urgent = [await at("urgent") for _ in range(2)]
    await start_worker("--limit=1", "--work-queue=usual", "--work-queue=urgent")
    await all_ended([*usual, *urgent], 60)
    assert max(begin for begin, _ in await spans(urgent)) < min(begin for begin, _ in await spans(usual))
    assert (await elsewhere.refresh()).state in ("Scheduled", "Late")
    assert job.name == pool


async def test_runs_that_wait_for_their_time_hide_none_that_is_due_in_a_queue_with_a_lower_priority(
    start_worker: StartWorker, pool: str
) -> None:
    await applied(pool, command=["true"])
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(seconds=300))
    async with get_client() as client:
        for priority, name in ((1, "urgent"), (2, "usual")):
            await client.create_work_queue(name=name, work_pool_name=pool, priority=priority)
        deployment = await client.read_deployment_by_name(f"job/{pool}")
        # As many as are asked for at once, but one.
        for _ in range(33):
            await client.create_flow_run_from_deployment(deployment.id, work_queue_name="urgent", state=later)
        made = [await client.create_flow_run_from_deployment(deployment.id, work_queue_name="usual") for _ in range(3)]
    await start_worker("--limit=2", "--prefetch-seconds=600", PREFECT_WORKER_QUERY_SECONDS="600")
    await all_ended([JobRun(flow_run) for flow_run in made], 60)


async def test_a_run_starts_at_the_time_for_which_it_was_scheduled(served: str, pool: str) -> None:
    await applied(pool, served)
    due = datetime.now(UTC) + timedelta(seconds=6)
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"job/{pool}")
        made = await client.create_flow_run_from_deployment(deployment.id, state=Scheduled(scheduled_time=due))
    run = JobRun(made)
    await asyncio.sleep(3)
    assert (await run.refresh()).state == "Scheduled"
    await all_ended([run], 30)
    late = (await begin_of(run) - due).total_seconds()
    assert run.state == "Completed"
    assert 0 <= late < 2, late


async def test_a_run_that_is_taken_back_before_its_time_does_not_start(served: str, pool: str) -> None:
    await applied(pool, served)
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"job/{pool}")
        soon, later = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (5, 60))
        moved, deleted = [
            await client.create_flow_run_from_deployment(deployment.id, state=Scheduled(scheduled_time=soon))
            for _ in range(2)
        ]
        await asyncio.sleep(2)
        await client.set_flow_run_state(moved.id, Scheduled(scheduled_time=later), force=True)
        await client.delete_flow_run(deleted.id)
        await asyncio.sleep(6)
        assert (await client.read_flow_run(moved.id)).state_name == "Scheduled"


async def test_a_new_run_is_begun_within_a_moment_though_polls_are_far_apart(served: str, pool: str) -> None:
    job = await applied(pool, served)
    await asyncio.sleep(3)  # It listens by now.
    seconds = []
    for _ in range(3):
        asked = time.time()
        run: JobRun = await job.run()
        await in_state(run, "Running", "Completed")
        seconds.append((await begin_of(run)).timestamp() - asked)
        await run.wait()
    assert sorted(seconds)[1] < 3, seconds


async def test_a_tick_of_a_schedule_starts_one_run(served: str, pool: str) -> None:
    await applied(pool, served, schedules=[Schedule(interval="20s")])

    async def is_scheduled() -> bool:
        return bool(await runs_of(pool))

    await until(is_scheduled, 30, "the runs of the next ticks")
    tick = (await runs_of(pool))[0].expected_start_time
    assert tick is not None

    async def of_the_tick() -> list[FlowRun]:
        return [run for run in await runs_of(pool) if run.expected_start_time == tick]

    async def has_ended() -> bool:
        found = await of_the_tick()
        return bool(found) and all(run.state and run.state.is_final() for run in found)

    await until(has_ended, 60, "the end of the tick's run")
    [flow_run] = await of_the_tick()
    async with get_client() as client:
        await client.delete_deployment((await client.read_deployment_by_name(f"job/{pool}")).id)
    run = JobRun(flow_run)
    assert (run.state, await lines_of([run])) == ("Completed", [["begins"]])
    assert 0 <= (await begin_of(run) - tick).total_seconds() < 2


async def test_a_flow_of_somebody_else_crashes_and_says_what_to_do(served: str, pool: str) -> None:
    async with get_client() as client:
        flow_id = await client.create_flow_from_name("somebody-elses")
        deployment_id = await client.create_deployment(
            flow_id, f"{pool}-foreign", work_pool_name=served, entrypoint="somebody.elses:flow"
        )
        run = JobRun(await client.create_flow_run_from_deployment(deployment_id))
    await all_ended([run], 30)
    assert run.state == "Crashed"
    said = str(run.flow_run.state and run.flow_run.state.message)
    assert "names the flow 'somebody.elses:flow'" in said
    assert "give the deployment a work pool of another type" in said


async def test_runs_of_a_deployment_that_was_deleted_leave_the_worker_at_work(served: str, pool: str) -> None:
    job = await applied(pool, served, command=["sh", "-c", "echo up; sleep 8"])
    run: JobRun = await job.run()
    await first_line(run)
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"job/{pool}")
        await client.delete_deployment(deployment.id)
    await all_ended([run], 60)
    assert (run.state, await lines_of([run])) == ("Completed", [["up"]])
    again: JobRun = await (await applied(pool, served)).run()
    await all_ended([again], 60)
    assert again.state == "Completed"


async def test_a_paused_pool_is_left_alone_until_it_goes_on(start_worker: StartWorker, pool: str) -> None:
    await start_worker()
    job = await applied(pool)

    async def paused(client: PrefectClient, is_so: bool) -> None:
        await client.update_work_pool(pool, WorkPoolUpdate(is_paused=is_so))

    async with get_client() as client:
        await paused(client, True)
        run: JobRun = await job.run()
        await asyncio.sleep(4)
        assert (await run.refresh()).state == "Scheduled"
        await paused(client, False)
    await all_ended([run], 60)
    assert run.state == "Completed"


@pytest.mark.parametrize("infrastructure", ["docker", "process"])
async def test_a_run_that_is_deleted_leaves_nothing(infrastructure: str, served: str, pool: str, busybox: str) -> None:
    command = ["sh", "-c", "echo up; sleep 600"]
    job = await applied(pool, served, infrastructure=infrastructure, image=busybox, command=command, grace_period="1s")
    run: JobRun = await job.run()
    await first_line(run)
    async with get_client() as client:
        await client.delete_flow_run(run.id)

    async def is_gone() -> bool:
        return left_by(run.id) == []

    await until(is_gone, 40, "the end of the container")
    after: JobRun = await job.run(command=["true"])
    await all_ended([after], 60)
    assert after.state == "Completed"
    said = (root() / f"{served}.log").read_text()
    about_it = said[said.index(f"Flow run {run.name!r}") :]
    assert f"Flow run {run.name!r} - Run ended: it was deleted; no container of it is left" in about_it
    assert "Traceback" not in about_it
