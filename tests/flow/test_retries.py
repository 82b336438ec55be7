"""Retries by cause: the job's own failures and those of the infrastructure have budgets of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hosts import docker
from ran import Execute, Ran, ran
from reach import containers_of, until

from prefect_jobs import Job, JobRun, Reason

Sh = Callable[..., Awaitable[Ran]]
Deploy = Callable[..., Awaitable[Job]]


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
