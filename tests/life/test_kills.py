"""Supervisors that are killed at every moment, again and again: nobody can tell from the run.

PREFECT_JOBS_KILLS=100 makes that many runs; the suite makes a few.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from counting import Counting
from hosts import docker
from reach import containers_of, lines
from supervisors import kill, start_supervisor

from prefect_jobs import Job, JobRun
from prefect_jobs.blocks.process import Process

RUNS = int(os.environ.get("PREFECT_JOBS_KILLS", "6"))
AT_ONCE = int(os.environ.get("PREFECT_JOBS_KILLS_AT_ONCE", "2"))
COUNTING = Counting()
MOMENTS = ["made", "started", "running", "ended", "any"]


@dataclass
class Seen:
    """What became of all runs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    lost = doubled = started = left = 0


async def _event(run: JobRun, action: str) -> None:
    """Wait for the Docker engine to tell something of the run's containers."""
    words = ("--filter", f"label=prefect-jobs/run-id={run.id}", "--filter", f"event={action}")
    events = await asyncio.create_subprocess_exec("docker", "events", *words, stdout=asyncio.subprocess.PIPE)
    assert events.stdout is not None
    try:
        await events.stdout.readline()
    finally:
        with suppress(ProcessLookupError):
            events.kill()
        await events.wait()


async def _file(run: JobRun, name: str) -> None:
    """Wait for a file that a shim writes."""
    folder = Process().folder / "runs" / str(run.id)
    while not list(folder.glob(f"attempt-*/{name}")):
        await asyncio.sleep(0.002)


def _moment(run: JobRun, infrastructure: str, moment: str, chance: random.Random) -> Awaitable[None]:
    """The moment at which a supervisor is killed."""
    if moment == "any":
        return asyncio.sleep(chance.uniform(1.0, 12.0))
    if moment == "running":
        return _after(_line(run), chance.uniform(0.0, 3.0))
    tell: Callable[[JobRun, str], Awaitable[None]] = _event if infrastructure == "docker" else _file
    actions = {"made": "create", "started": "start", "ended": "die"}
    files = {"made": "identity.json", "started": "started.json", "ended": "exit.json"}
    return tell(run, (actions if infrastructure == "docker" else files)[moment])


async def _line(run: JobRun) -> None:
    while not await lines(run):
        await asyncio.sleep(0.1)


async def _after(first: Awaitable[None], seconds: float) -> None:
    await first
    await asyncio.sleep(seconds)


async def _play(number: int, image: str, seen: Seen) -> None:
    chance = random.Random(number)
    infrastructure = ("docker", "process")[number % 2]
    name = f"killed-{infrastructure}-{uuid4().hex[:8]}"
    job = Job(name=name, infrastructure=infrastructure, image=image, command=COUNTING.command)
    await job.apply()
    run: JobRun = await job.run()
    for moment in (MOMENTS[number // 2 % len(MOMENTS)], *chance.choices(MOMENTS, k=chance.randrange(2))):
        if await _is_over(run):  # To run it again would be to start it anew, as a person may.
            break
        supervisor = await start_supervisor(run)
        killed = asyncio.ensure_future(_moment(run, infrastructure, moment, chance))
        ended = asyncio.create_task(supervisor.wait())
        await asyncio.wait((killed, ended), timeout=60, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        seen.kills[moment if not ended.done() else "too late"] += 1
        await kill(supervisor)
        await asyncio.gather(killed, ended, return_exceptions=True)
    if not await _is_over(run):
        await (await start_supervisor(run)).wait()
        await run.refresh()
    written = await lines(run)
    counts = Counter(written)
    seen.outcomes[f"{run.state}: {[(outcome.attempt, outcome.exit_code) for outcome in run.attempts]}"] += 1
    seen.started += sum(line.startswith("starts ") for line in counts)
    seen.lost += len(set(COUNTING.expected) - set(written))
    seen.doubled += counts.total() - len(counts)
    seen.left += len(containers_of(run.id)) + len(_left(run))
    assert written == COUNTING.expected, (number, infrastructure)


async def _is_over(run: JobRun) -> bool:
    state = (await run.refresh()).flow_run.state
    return state is not None and state.is_final()


def _left(run: JobRun) -> list[str]:
    folder = Process().folder / "runs" / str(run.id)
    return docker("volume", "ls", "-q", "--filter", f"name={run.id}").split() + [str(path) for path in folder.glob("*")]


@pytest.mark.timeout(0)
async def test_nobody_can_tell_from_a_run_that_its_supervisors_were_killed(busybox: str, prefect_api: str) -> None:
    seen, gate = Seen(), asyncio.Semaphore(AT_ONCE)

    async def play(number: int) -> None:
        async with gate, asyncio.timeout(300):
            await _play(number, busybox, seen)

    problems = [
        problem
        for problem in await asyncio.gather(*map(play, range(RUNS)), return_exceptions=True)
        if problem is not None
    ]
    print(f"\n{RUNS} runs, killed {dict(seen.kills)}; {dict(seen.outcomes)}")
    print(f"{seen.started} containers started, {seen.left} left, {seen.lost} lines lost, {seen.doubled} doubled")
    assert not problems
    assert seen.kills.total() - seen.kills["too late"] >= RUNS / 2
    assert seen.outcomes == {"Failed: [(1, 3)]": RUNS}
    assert (seen.started, seen.left, seen.lost, seen.doubled) == (RUNS, 0, 0, 0)
