"""The supervisor may die at any moment: the container goes on, and whoever runs the flow run again takes it up."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from counting import Counting
from looks import attempts_become, task_runs_of
from prefect.client.orchestration import get_client
from prefect.states import Running, Suspended
from reach import first_line, until
from supervisors import kill, start_supervisor, supervise

from prefect_jobs import Job
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.deployments.runs import JobRun
from prefect_jobs.flows.attempts import attempt
from prefect_jobs.outcome import Reason

# Longer than all but the last of its supervisors live.
COUNTING = Counting(lines=300, pause=0.02)


async def _container_lines(run: JobRun) -> list[str]:
    return [log.message for log in await run.logs() if log.name.startswith("container.")]


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
@pytest.mark.parametrize("moments", [(4.2, 3.3)], ids=str)
async def test_a_run_whose_supervisor_was_killed_ends_as_if_nothing_had_happened(
    infrastructure: str, moments: tuple[float, ...], busybox: str, prefect_api: str
) -> None:
    name = f"counting-{infrastructure}-{len(moments)}-{moments[0]:g}".replace(".", "-")
    job = Job(name=name, infrastructure=infrastructure, image=busybox, command=COUNTING.command)
    await job.apply()
    run = await job.run()
    for seconds in (*moments, None):
        await supervise(run, seconds)
        await asyncio.sleep(1)  # What it had sent has arrived: who takes up a run that has ended starts it again.
        state = (await run.refresh()).flow_run.state
        if state is not None and state.is_final():
            break
    assert run.state == "Failed"
    assert [(outcome.attempt, outcome.exit_code) for outcome in run.attempts] == [(1, 3)]
    assert await _container_lines(run) == COUNTING.expected
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        assert run.id not in [found.run_id for found in await engine.containers()]


async def test_a_run_that_a_person_starts_again_makes_a_new_attempt(prefect_api: str) -> None:
    # A progress bar and an empty line at the end: the state's message is compared with what was kept.
    script = r"echo attempt $JOB_ATTEMPT; printf '10%%\r20%%\n\n' >&2; exit 3"
    job = Job(name="started-again", command=["sh", "-c", script])
    await job.apply()
    run = await job.run()
    await supervise(run)
    async with get_client() as client:
        from prefect.states import Scheduled

        await client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
    await supervise(run)
    await run.refresh()
    assert [(outcome.attempt, outcome.reason) for outcome in run.attempts] == [(1, Reason.FAILED), (2, Reason.FAILED)]
    lines = await _container_lines(run)
    assert [line for line in lines if line.startswith("attempt")] == ["attempt 1", "attempt 2"]
    assert run.attempts[0].tail == ("10%\r20%", "")


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
async def test_an_attempts_timeout_counts_from_its_start_whoever_looks_after_it(
    infrastructure: str, busybox: str, prefect_api: str
) -> None:
    script = "trap 'exit 5' TERM; echo up; sleep 60 & wait"
    job = Job(
        name=f"limited-{infrastructure}",
        infrastructure=infrastructure,
        image=busybox,
        command=["sh", "-c", script],
        timeout={"attempt": 12},
    )
    await job.apply()
    run = await job.run()
    supervisor = await start_supervisor(run)
    await first_line(run)
    await asyncio.sleep(6)
    await kill(supervisor)
    await supervise(run)
    await run.refresh()
    (outcome,) = run.attempts
    assert (outcome.reason, outcome.exit_code) == (Reason.TIMED_OUT, 5)
    assert outcome.message == "it ran longer than its timeout of 12 s"
    assert outcome.seconds is not None
    # Counted anew it would be at least 18 s: the supervisor that was killed had looked after it for 6.
    assert 12 <= outcome.seconds < 18
    assert outcome.waited_seconds is not None
    assert outcome.waited_seconds < 8


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
async def test_a_container_that_outlived_its_total_timeout_is_stopped_by_whoever_takes_it_up(
    infrastructure: str, busybox: str, prefect_api: str
) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    job = Job(
        name=f"overdue-{infrastructure}",
        infrastructure=infrastructure,
        image=busybox,
        command=["sh", "-c", script],
        timeout={"total": 8},
    )
    await job.apply()
    run = await job.run()
    supervisor = await start_supervisor(run)
    await first_line(run)
    await kill(supervisor)
    await asyncio.sleep(8)
    await supervise(run)
    await run.refresh()
    (outcome,) = run.attempts
    assert (run.state, outcome.reason, outcome.exit_code) == ("TimedOut", Reason.TIMED_OUT, 5)
    assert outcome.message == "the total timeout has passed"
    # The shell says that its last command was terminated with it.
    assert [line for line in await _container_lines(run) if line != "Terminated"] == ["up", "bye"]
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        assert run.id not in [found.run_id for found in await engine.containers()]


async def test_a_run_that_was_suspended_and_is_resumed_does_not_begin_anew(prefect_api: str) -> None:
    job = Job(name="suspended-and-resumed", command=["sh", "-c", "echo attempt $JOB_ATTEMPT; sleep 3"])
    await job.apply()
    run = await job.run()
    supervisor = await start_supervisor(run)
    await first_line(run)
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Suspended(timeout_seconds=600))
        async with asyncio.timeout(60):
            await supervisor.wait()
        assert (await run.refresh()).state == "Suspended"
        await client.resume_flow_run(run.id)
    await supervise(run)
    await run.refresh()
    assert (run.state, [outcome.attempt for outcome in run.attempts]) == ("Completed", [1])
    assert await _container_lines(run) == ["attempt 1"]


async def test_a_supervisor_that_dies_between_two_attempts_leaves_no_task_run_open(prefect_api: str) -> None:
    retries = {"failures": 1, "delay": 6}
    job = Job(name="dies-between-attempts", command=["sh", "-c", "echo attempt $JOB_ATTEMPT; exit 3"], retries=retries)
    await job.apply()
    run = await job.run()
    supervisor = await start_supervisor(run)

    async def is_waiting() -> bool:
        return "AwaitingRetry" in {state for _, state in await task_runs_of(run.id)}

    await until(is_waiting, 60, "the delay before the second attempt")
    await kill(supervisor)
    await supervise(run)
    await run.refresh()
    assert [(outcome.attempt, outcome.exit_code) for outcome in run.attempts] == [(1, 3), (2, 3)]
    await attempts_become(run.id, {("attempt 1", "Failed"): 1, ("attempt 2", "Failed"): 1})


async def test_a_task_run_of_the_dead_that_the_server_hears_of_late_is_closed_in_the_end(prefect_api: str) -> None:
    job = Job(name="heard-of-late", command=["sh", "-c", "echo up; sleep 10"])
    await job.apply()
    run = await job.run()
    supervisor = await start_supervisor(run)
    await first_line(run)
    await kill(supervisor)
    successor = await start_supervisor(run)

    async def is_taken_up() -> bool:
        return ("attempt 1", "Running") in await task_runs_of(run.id) and (await run.refresh()).flow_run.run_count == 2

    await until(is_taken_up, 60, "the run to be taken up")
    async with get_client() as client:
        # As the server takes the event that was on its way when the supervisor died.
        await client.create_task_run(attempt, run.id, uuid4().hex, name="late", state=Running())
        async with asyncio.timeout(60):
            await successor.wait()
    assert (await run.refresh()).state == "Completed"

    async def all_closed() -> bool:
        return not {name for name, _ in await task_runs_of(run.id)} - {"attempt 1"}

    await until(all_closed, 10, "no task run that is open")
