from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from bench import Bench
from hosts import processes_with

from prefect_jobs.outcome import Reason


@pytest.mark.parametrize("code", [1, 2, 7, 126, 127, 255])
async def test_an_exit_code_other_than_0_is_a_failure_with_that_code(bench: Bench, code: int) -> None:
    outcome = (await bench.run(bench.sh(f"exit {code}"))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, code)


async def test_exit_code_0_is_success(bench: Bench) -> None:
    outcome = (await bench.run(bench.spec("true"))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.SUCCEEDED, 0)


async def test_a_command_that_does_not_exist_fails_with_127_and_is_named(bench: Bench) -> None:
    ended = await bench.run(bench.spec("no-such-program-anywhere"))
    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.FAILED, 127)
    assert "no-such-program-anywhere" in ended.outcome.message + "".join(ended.texts)


async def test_a_command_that_is_no_program_fails_with_126(bench: Bench) -> None:
    outcome = (await bench.run(bench.spec("/etc"))).outcome
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, 126)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [("TERM", 143, Reason.KILLED), ("KILL", 137, Reason.KILLED), ("SEGV", 139, Reason.FAILED)],
)
async def test_a_signal_shows_as_128_and_its_number_and_by_its_name(
    bench: Bench, name: str, code: int, reason: Reason
) -> None:
    # The first process of a container is immune to most signals, so that its child takes this one.
    outcome = (await bench.run(bench.sh(f"sh -c 'kill -{name} $$'; exit $?"))).outcome
    assert (outcome.exit_code, outcome.reason) == (code, reason)
    assert f"signal {code - 128} (SIG{name})" in outcome.message


async def test_what_somebody_kills_with_sigkill_was_killed(bench: Bench) -> None:
    mark = f"mark-{uuid4()}"
    container = await bench.launch(bench.spec("sh", "-c", "sleep 60; true", mark))
    async with asyncio.timeout(10):
        while not (found := processes_with(mark)):
            await asyncio.sleep(0.05)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    outcome = await container.wait()
    assert (outcome.exit_code, outcome.reason) == (137, Reason.KILLED)
    assert "signal 9 (SIGKILL) from outside" in outcome.message


async def test_an_outcome_knows_what_was_used(bench: Bench) -> None:
    # Two seconds, because engines measure once a second.
    busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    big = "dd if=/dev/zero of=/dev/null bs=40000000 count=1 2>/dev/null"
    outcome = (await bench.run(bench.sh(f"{big}; {busy}; sleep 2.2"))).outcome
    assert outcome.cpu_seconds is not None
    assert 0.02 < outcome.cpu_seconds < 20
    assert outcome.peak_memory is not None
    assert 40_000_000 < outcome.peak_memory < 200_000_000


async def test_what_was_used_is_known_of_one_that_was_stopped(bench: Bench) -> None:
    container = await bench.launch(bench.sh("echo up; sleep 60"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(container.wait(), 2.5)
    await container.stop(1)
    outcome = await container.wait()
    assert container.told_to_stop
    assert outcome.cpu_seconds is not None
    assert outcome.peak_memory is not None
    assert outcome.peak_memory > 100_000


async def test_a_container_that_runs_knows_its_age(bench: Bench) -> None:
    container = await bench.launch(bench.spec("sleep", "5"))
    await asyncio.sleep(1)
    assert 0.9 <= await container.age() < 4


async def test_an_outcome_knows_its_attempt_and_when_it_ran(bench: Bench) -> None:
    before = datetime.now(UTC)
    outcome = (await bench.run(bench.spec("sleep", "0.3"), bench.identity(attempt=3))).outcome
    assert outcome.attempt == 3
    assert outcome.started is not None
    assert outcome.ended is not None
    assert before - timedelta(seconds=0.1) <= outcome.started < outcome.ended <= datetime.now(UTC)
    assert outcome.seconds == pytest.approx(0.3, abs=0.29)
