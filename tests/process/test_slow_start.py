"""A shim that does not start in time is given up, and the attempt never starts later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest
from bench import Bench

from prefect_jobs.blocks import process_engine
from prefect_jobs.errors import EngineUnavailable, InfrastructureError
from prefect_jobs.outcome import Reason

SLOW = "import time\ntime.sleep(1.5)"
# It leaves the group by which it would be killed, and lets go of what tells that it lives.
SLOW_AND_ASTRAY = "import os, time\nif os.fork(): time.sleep(60)\nos.setsid()\ntime.sleep(1.5)"
HANGING_IN_START = "import time\nshim.Shim.start = lambda self: time.sleep(60)"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_engine, "SHIM_START_SECONDS", 0.7)


@pytest.mark.parametrize("code", [SLOW, SLOW_AND_ASTRAY, HANGING_IN_START], ids=["slow", "astray", "hanging"])
async def test_an_attempt_that_was_given_up_never_starts(
    bench: Bench, first: Callable[[str], None], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(code)
    identity, spec = bench.identity(), bench.sh('echo started > "$JOB_CHECKPOINT_DIR/mark"')
    with pytest.raises(
        InfrastructureError, match=r"did not start within 0\.7 s, and the attempt was given up"
    ) as raised:
        await bench.launch(spec, identity)
    assert not isinstance(raised.value, EngineUnavailable)
    await asyncio.sleep(2)
    monkeypatch.undo()
    # Whoever asks again gets no second start, and learns what became of it.
    outcome = (await bench.run(spec, identity)).outcome
    assert outcome.reason is Reason.UNSCHEDULABLE
    assert "did not start in time" in outcome.message
    look = bench.sh('ls "$JOB_CHECKPOINT_DIR"')
    assert (await bench.run(look, bench.identity(identity.run_id, attempt=2))).texts == []


async def test_a_launch_that_is_cancelled_leaves_nothing_that_starts_later(
    bench: Bench, first: Callable[[str], None], processes_of: Callable[[UUID], list[int]]
) -> None:
    first(SLOW_AND_ASTRAY)
    identity = bench.identity()
    launching = asyncio.create_task(bench.launch(bench.sh("sleep 60"), identity))
    await asyncio.sleep(0.4)
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    await asyncio.sleep(2)
    assert processes_of(identity.run_id) == []


async def test_whoever_is_too_slow_attaches_to_what_another_started(bench: Bench, first: Callable[[str], None]) -> None:
    identity, spec = bench.identity(), bench.sh("sleep 7; echo end")
    fast = await bench.launch(spec, identity)
    first(SLOW)
    slow = await bench.launch(spec, identity)
    for ended in await asyncio.gather(bench.end_of(fast), bench.end_of(slow)):
        assert ended.texts == ["end"]
