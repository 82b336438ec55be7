"""The outcome of each attempt is kept in Prefect, for people and for programs; nothing else is left."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from hosts import docker_host, process_host
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from ran import Ran

from prefect_jobs import JobRun, Reason

Sh = Callable[..., Awaitable[Ran]]


async def test_an_outcome_is_read_back_as_it_was(sh: Sh, busybox: str) -> None:
    done = await sh("echo one; sleep 0.2; echo bad >&2; exit 3", image=busybox, infrastructure="docker")
    outcome = done.run.outcome
    assert outcome is not None
    assert (outcome.reason, outcome.exit_code, outcome.attempt) == (Reason.FAILED, 3, 1)
    assert outcome.tail == ("bad",)
    assert outcome.image is not None
    assert outcome.image.startswith("sha256:")
    assert outcome.seconds is not None
    assert 0.1 < outcome.seconds < 10
    assert outcome.summary() == "exit code 3"


async def test_another_handle_of_the_run_reads_the_same_attempts(sh: Sh) -> None:
    done = await sh("exit 1", retries=1)
    async with get_client() as client:
        handle = JobRun(await client.read_flow_run(done.run.id))
    assert handle.outcome is None
    await handle.refresh()
    assert handle.attempts == done.run.attempts
    assert len(handle.attempts) == 2
    assert handle.exit_code == 1
    assert (handle.state, handle.name) == ("Failed", done.run.name)


async def test_a_run_says_how_each_attempt_ended(sh: Sh) -> None:
    done = await sh('[ "$JOB_ATTEMPT" = 2 ]', retries=2)
    ended = [line for line in done.told if re.match(r"Attempt \d+ ended", line)]
    assert [line.partition(" (")[0] for line in ended] == ["Attempt 1 ended", "Attempt 2 ended"]
    assert re.search(r"\(waited \d+\.\d s, ran \d+\.\d s, used \d+\.\d s of CPU, at most \d+ MiB of memory\)", ended[0])
    assert ended[0].endswith("exit code 1")
    assert ended[1].endswith("exit code 0")


@pytest.mark.parametrize(
    ("script", "keys", "name"),
    [
        ("touch file; exit 0", {}, "Completed"),
        ("touch $JOB_CHECKPOINT_DIR/file; exit 1", {"retries": 1}, "Failed"),
        ("sleep 60", {"timeout": 0.3}, "TimedOut"),
        ("sleep 60 & exit 0", {}, "Completed"),
    ],
    ids=["completed", "failed", "timed out", "left running"],
)
@pytest.mark.parametrize("infrastructure", ["process", "docker"])
async def test_nothing_is_left_of_a_run_however_it_ended(
    sh: Sh, busybox: str, script: str, keys: dict[str, object], name: str, infrastructure: str
) -> None:
    done = await sh(script, image=busybox, infrastructure=infrastructure, grace_period=1, **keys)
    assert done.state.name == name
    assert _left_by(done.run.id, busybox) == []


async def test_nothing_is_left_of_a_container_that_the_engine_refused(sh: Sh, busybox: str) -> None:
    done = await sh("true", image=busybox, infrastructure="docker", shape={"gpu": 1})
    assert done.state.name == "Unschedulable"
    assert _left_by(done.run.id, busybox) == []


def _left_by(run_id: UUID, image: str) -> list[str]:
    home = get_current_settings().home / "jobs"
    return [*process_host(home).left_by(run_id), *docker_host(image).left_by(run_id)]
