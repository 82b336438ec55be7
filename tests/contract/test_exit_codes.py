from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from bench import Bench

from prefect_jobs.outcome import Reason


@pytest.mark.parametrize("code", [1, 7, 126, 127, 143, 255])
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


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139)])
async def test_a_signal_shows_as_128_and_its_number(bench: Bench, name: str, code: int) -> None:
    # The first process of a container is immune to most signals, so that its child takes this one.
    outcome = (await bench.run(bench.sh(f"sh -c 'kill -{name} $$'; exit $?"))).outcome
    assert outcome.exit_code == code


async def test_an_outcome_knows_its_attempt_and_when_it_ran(bench: Bench) -> None:
    before = datetime.now(UTC)
    outcome = (await bench.run(bench.spec("sleep", "0.3"), bench.identity(attempt=3))).outcome
    assert outcome.attempt == 3
    assert outcome.started is not None
    assert outcome.ended is not None
    assert before - timedelta(seconds=0.1) <= outcome.started < outcome.ended <= datetime.now(UTC)
    assert outcome.seconds == pytest.approx(0.3, abs=0.29)
