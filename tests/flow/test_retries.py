"""Retries by cause: the job's own failures and those of the infrastructure have budgets of their own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hosts import docker
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterTaskRunId,
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import ArtifactSort, TaskRunSort
from ran import Execute, Ran, ran
from reach import containers_of, until
from supervisors import kill, start_supervisor, supervise

from prefect_jobs import Job, JobRun, Outcome, Reason, Retries
from prefect_jobs.flows.retries import Budget

Sh = Callable[..., Awaitable[Ran]]
Deploy = Callable[..., Awaitable[Job]]
Start = Callable[..., Awaitable[Ran]]


async def test_a_failure_is_retried_as_often_as_its_budget_says(sh: Sh) -> None:
    done = await sh("echo attempt $JOB_ATTEMPT; exit 1", retries=2)
    assert done.state.name == "Failed"
    assert done.codes == [1, 1, 1]
    assert [outcome.attempt for outcome in done.run.attempts] == [1, 2, 3]
    assert done.lines == ["attempt 1", "attempt 2", "attempt 3"]


async def test_the_run_ends_with_the_first_attempt_that_succeeds(sh: Sh) -> None:
    done = await sh('[ "$JOB_ATTEMPT" = 2 ]', retries={"failures": 5})
    assert done.state.name == "Completed"
    assert done.codes == [1, 0]


async def test_a_success_and_a_job_without_retries_are_not_retried(sh: Sh) -> None:
    assert (await sh("true", retries=3)).codes == [0]
    assert (await sh("exit 1")).codes == [1]


async def test_exit_codes_that_must_not_be_retried_are_not(sh: Sh) -> None:
    done = await sh('[ "$JOB_ATTEMPT" = 1 ] && exit 1; exit 2', retries={"failures": 5, "never_on": [2, 3]})
    assert done.codes == [1, 2]


async def test_failures_do_not_use_the_budget_of_the_infrastructure(sh: Sh) -> None:
    assert (await sh("exit 1", retries={"infrastructure": 3})).codes == [1]
    assert (await sh("exit 1", retries={"failures": 1, "infrastructure": 3})).codes == [1, 1]


async def test_a_lost_container_is_retried_from_the_budget_of_the_infrastructure(
    deploy: Deploy, execute: Execute, busybox: str
) -> None:
    job = await deploy(
        image=busybox,
        command=["sh", "-c", 'echo attempt $JOB_ATTEMPT; [ "$JOB_ATTEMPT" = 1 ] && sleep 60; exit 0'],
        infrastructure="docker",
        retries={"failures": 0, "infrastructure": 1},
    )
    run: JobRun = await job.run()

    async def remove() -> None:
        async def runs() -> bool:
            return any(log.message == "attempt 1" for log in await run.logs())

        await until(runs, 30, "the first container")
        docker("rm", "--force", *containers_of(run.id))

    done, _ = await asyncio.gather(ran(execute, run), remove())
    assert [outcome.reason for outcome in done.run.attempts] == [Reason.LOST, Reason.SUCCEEDED]
    assert done.state.name == "Completed"
    assert done.lines[-1] == "attempt 2"


async def test_a_refused_container_is_retried_as_a_failure_of_the_infrastructure(sh: Sh, busybox: str) -> None:
    done = await sh(
        "true", image=busybox, infrastructure="docker", shape={"gpu": 1}, retries={"failures": 3, "infrastructure": 1}
    )
    assert [outcome.reason for outcome in done.run.attempts] == [Reason.UNSCHEDULABLE] * 2
    assert done.state.name == "Unschedulable"


async def test_a_retry_waits_for_its_delay(sh: Sh) -> None:
    done = await sh("exit 1", retries={"failures": 2, "delay": [0.2, 1.5]})
    first, second, third = done.run.attempts
    assert first.ended is not None
    assert second.started is not None
    assert second.ended is not None
    assert third.started is not None
    assert 0.2 <= (second.started - first.ended).total_seconds() < 1.5
    assert 1.5 <= (third.started - second.ended).total_seconds() < 10


async def test_the_checkpoint_of_one_attempt_is_there_for_the_next(sh: Sh) -> None:
    script = 'cat "$JOB_CHECKPOINT_DIR/step" 2>/dev/null && exit 0; echo half > "$JOB_CHECKPOINT_DIR/step"; exit 1'
    done = await sh(script, retries=1)
    assert (done.codes, done.lines) == ([1, 0], ["half"])


def _pauses(outcomes: list[Outcome]) -> list[float]:
    """Seconds between the end of each attempt and the start of the next."""
    times = [(earlier.ended, later.started) for earlier, later in pairwise(outcomes)]
    return [(start - end).total_seconds() for end, start in times if start and end]


async def test_every_attempt_is_a_task_run_of_its_own_that_says_how_it_ended(deploy: Deploy, start: Start) -> None:
    script = '[ "$JOB_ATTEMPT" = 3 ] && exit 0; echo no $JOB_ATTEMPT >&2; exit $JOB_ATTEMPT'
    job = await deploy(command=["sh", "-c", script], retries={"failures": 2, "delay": 0.5, "backoff": 2})
    done = await start(job)
    async with get_client() as client:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[done.run.id]))
        task_runs = await client.read_task_runs(
            flow_run_filter=of_run, sort=TaskRunSort.EXPECTED_START_TIME_ASC, limit=200
        )
        titles = {
            run.name: [
                artifact.description
                for artifact in await client.read_artifacts(
                    artifact_filter=ArtifactFilter(task_run_id=ArtifactFilterTaskRunId(any_=[run.id])),
                    flow_run_filter=of_run,
                    task_run_filter=TaskRunFilter(),
                    sort=ArtifactSort.CREATED_DESC,
                    limit=200,
                )
            ]
            for run in task_runs
            if run.name.startswith("attempt ")
        }
    states = {run.name: run.state for run in task_runs if run.state is not None and run.name in titles}
    assert {name: (state.type, state.message) for name, state in states.items()} == {
        "attempt 1": (StateType.FAILED, "exit code 1\nno 1"),
        "attempt 2": (StateType.FAILED, "exit code 2\nno 2"),
        "attempt 3": (StateType.COMPLETED, "exit code 0"),
    }
    assert titles == {
        f"attempt {number}": [f"Attempt {number}: exit code {number % 3} (job {job.name} on process)"]
        for number in (1, 2, 3)
    }
    assert any("Attempt 3 follows: retry 2 of 2 after failures in about 1 s" in line for line in done.told)
    first, second = _pauses(done.run.attempts)
    assert first >= 0.5
    assert second >= 1
    assert not any("NoneType: None" in line for line in done.told)


async def test_the_log_says_why_no_attempt_follows(sh: Sh) -> None:
    assert "No further attempt: 1 of 1 retries after failures are used" in (await sh("exit 1", retries=1)).told
    done = await sh("exit 2", retries={"failures": 1, "never_on": [2]})
    assert "No further attempt: exit code 2 is never retried" in done.told


async def test_a_run_does_not_wait_for_a_retry_past_its_total_timeout(sh: Sh) -> None:
    done = await sh("exit 1", retries={"failures": 1, "delay": "1m"}, timeout={"total": 20})
    assert (done.state.name, done.message) == ("Failed", "exit code 1")
    assert "No further attempt: a retry after 60 s would begin past the total timeout" in done.told


async def test_a_delay_goes_on_where_the_supervisor_that_waited_was_killed(deploy: Deploy) -> None:
    job = await deploy(command=["sh", "-c", "exit 1"], retries={"failures": 2, "delay": [0, 8]})
    run: JobRun = await job.run()
    supervisor = await start_supervisor(run)

    async def waits() -> bool:
        return any("Attempt 3 follows" in log.message for log in await run.logs())

    await until(waits, 40, "the second retry's delay")
    await kill(supervisor)
    await supervise(run)
    await run.refresh()
    assert [outcome.attempt for outcome in run.attempts] == [1, 2, 3]
    # Not the first retry's delay, and not the second one's from its beginning.
    told = [log.message for log in await run.logs() if "Attempt 3 starts in" in log.message]
    assert [words for words in told if float(words.split()[4]) > 7.5] == []  # None where it took longer to take it up.
    assert _pauses(run.attempts)[1] >= 8


async def test_jitter_spreads_a_delay(sh: Sh) -> None:
    done = await sh("exit 1", retries={"failures": 4, "delay": 0.4, "jitter": 0.5})
    told = [re.search(r"Retry \d/\d will start ([\d.]+) second", line) for line in done.told]
    delays = [float(found[1]) for found in told if found]
    assert len(set(delays)) == 4
    assert 0.2 <= min(delays) < max(delays) <= 0.6


def test_an_engine_whose_clock_is_ahead_makes_no_delay_longer() -> None:
    budget = Budget(Retries.model_validate({"failures": 1, "delay": 5}), None)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    assert budget.spend(Outcome(reason=Reason.FAILED, exit_code=1), ahead).again
    assert budget.pause <= 5
