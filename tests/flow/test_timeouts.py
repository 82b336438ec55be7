from __future__ import annotations

from collections.abc import Awaitable, Callable

from prefect.client.schemas.objects import StateType
from ran import Ran

from prefect_jobs import Job, Reason

Sh = Callable[..., Awaitable[Ran]]


async def test_an_attempt_that_runs_too_long_is_stopped_and_named_so(sh: Sh) -> None:
    done = await sh("echo up; sleep 60", timeout=0.5)
    assert (done.state.type, done.state.name) == (StateType.FAILED, "TimedOut")
    assert "longer than its timeout of 0.5 s" in done.message
    assert done.lines == ["up"]
    assert done.run.exit_code == 124
    seconds = done.run.attempts[0].seconds
    assert seconds is not None
    assert 0.4 < seconds < 5


async def test_an_attempt_that_ignores_its_end_is_killed_after_the_grace_period(sh: Sh) -> None:
    done = await sh("trap '' TERM; while :; do sleep 0.05; done", timeout=0.3, grace_period=0.5)
    assert done.state.name == "TimedOut"
    assert done.codes == [137]


async def test_a_timeout_of_an_attempt_is_retried_as_a_failure(sh: Sh) -> None:
    done = await sh('[ "$JOB_ATTEMPT" = 2 ] || sleep 60', timeout=0.5, retries={"failures": 1})
    assert [outcome.reason for outcome in done.run.attempts] == [Reason.TIMED_OUT, Reason.SUCCEEDED]


async def test_the_total_timeout_ends_a_run_in_the_middle_of_an_attempt(sh: Sh) -> None:
    done = await sh("sleep 60", timeout={"total": 0.7}, retries=5)
    assert done.state.name == "TimedOut"
    assert len(done.run.attempts) == 1


async def test_the_total_timeout_covers_all_attempts_together(sh: Sh) -> None:
    done = await sh("sleep 0.4; exit 1", timeout={"total": 2.5, "attempt": 60}, retries=50)
    assert 2 <= len(done.run.attempts) <= 6
    assert done.state.name in ("TimedOut", "Failed")  # Failed where it passed just between two attempts.


async def test_the_total_timeout_covers_the_start_too(
    deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]], docker_engine: None
) -> None:
    job = await deploy(image="127.0.0.1:9/name:1", command=["true"], timeout={"start": 60, "total": 1})
    done = await start(job, infrastructure="docker")
    assert (done.state.type, done.state.name) == (StateType.FAILED, "TimedOut")
    assert "the total timeout has passed; the last that was tried: Pulling image 127.0.0.1:9/name:1" in done.message


async def test_a_container_that_has_not_started_in_time_says_what_it_waited_for(
    deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]], docker_engine: None
) -> None:
    # A registry that is away: nothing listens there.
    job = await deploy(image="127.0.0.1:9/name:1", command=["true"], timeout={"start": 3})
    done = await start(job, infrastructure="docker")
    assert (done.state.type, done.state.name) == (StateType.CRASHED, "Unschedulable")
    assert "had not started after 3 s; the last that was tried: Pulling image 127.0.0.1:9/name:1" in done.message
    assert any(line.startswith("Pulling image 127.0.0.1:9/name:1 did not work yet") for line in done.told)


async def test_a_run_that_ends_in_time_is_left_alone(sh: Sh) -> None:
    done = await sh("echo done", timeout={"attempt": 30, "total": 30, "start": 30})
    assert (done.state.name, done.lines) == ("Completed", ["done"])
