from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest
from bench import Bench, first_line, read
from hosts import processes_with

from prefect_jobs.blocks.engine import Container
from prefect_jobs.outcome import Reason

# Long enough to tell a kill after the grace period from one before it.
GRACE = 1.0
OBEDIENT = "trap 'echo bye; exit 143' TERM; echo up; sleep 60 & wait"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


async def _stopped(container: Container, grace_seconds: float) -> float:
    """How long it took, in seconds."""
    await first_line(container)
    before = time.monotonic()
    async with asyncio.timeout(20):
        await container.stop(grace_seconds)
    return time.monotonic() - before


async def test_a_process_that_obeys_ends_at_once_and_may_say_a_last_word(bench: Bench) -> None:
    container = await bench.launch(bench.sh(OBEDIENT))
    assert await _stopped(container, 30) < 10
    ended = await bench.end_of(container)
    assert ended.outcome.exit_code == 143
    assert ended.texts == ["up", "bye"]


async def test_a_process_that_ignores_it_is_killed_after_the_grace_period(bench: Bench) -> None:
    container = await bench.launch(bench.sh(STUBBORN))
    assert GRACE * 0.9 <= await _stopped(container, GRACE) < GRACE + 8
    outcome = await container.wait()
    assert outcome.exit_code == 137
    assert outcome.reason is not Reason.SUCCEEDED


async def test_the_grace_period_is_time_to_tidy_up(bench: Bench) -> None:
    container = await bench.launch(bench.sh("trap 'sleep 0.5; echo tidy; exit 0' TERM; echo up; sleep 60 & wait"))
    await _stopped(container, 10)
    ended = await bench.end_of(container)
    assert ended.texts == ["up", "tidy"]
    assert ended.outcome.exit_code == 0


@pytest.mark.parametrize("script", [STUBBORN, OBEDIENT], ids=["stubborn", "obedient"])
async def test_nothing_that_a_container_started_survives_it(bench: Bench, script: str) -> None:
    mark = f"mark-{uuid4()}"
    child = f"""sh -c 'trap "" TERM; while :; do sleep 0.05; done' {mark} & """
    container = await bench.launch(bench.sh(f"{child} setsid {child} {script}"))
    await first_line(container)
    async with asyncio.timeout(10):
        while len(processes_with(mark)) < 2:
            await asyncio.sleep(0.01)
    await container.stop(GRACE)
    await container.wait()
    assert processes_with(mark) == []


async def test_what_a_container_leaves_running_when_it_ends_is_ended_with_it(bench: Bench) -> None:
    mark = f"mark-{uuid4()}"
    ended = await bench.run(bench.sh(f"setsid sh -c 'while :; do sleep 0.05; done' {mark} & sleep 0.2; echo end"))
    assert ended.texts == ["end"]
    assert processes_with(mark) == []


async def test_stopping_what_has_ended_changes_nothing(bench: Bench) -> None:
    container = await bench.launch(bench.sh("exit 3"))
    before = await container.wait()
    await container.stop(GRACE)
    await container.stop(0)
    assert await container.wait() == before


async def test_stopping_what_was_removed_is_no_error(bench: Bench) -> None:
    container = await bench.launch(bench.spec("true"))
    await container.wait()
    await container.remove()
    await container.stop(GRACE)


async def test_two_may_stop_it_at_once(bench: Bench) -> None:
    container = await bench.launch(bench.sh(OBEDIENT))
    await first_line(container)
    async with asyncio.timeout(20):
        await asyncio.gather(
            container.stop(10), container.stop(10), container.wait(), container.wait(), read(container)
        )
