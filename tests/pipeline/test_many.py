"""Many runs at once: all are there, in their order, none costs a request while it is waited for, memory stays flat.

PREFECT_JOBS_BRANCHES=1000 and PREFECT_JOBS_DOCKER_BRANCHES=200 are what is promised; the suite has fewer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from pipelines import There
from session import root
from workers import StartWorker, Worker

from prefect_jobs import apply
from prefect_jobs.document import load_document

PROCESSES = int(os.environ.get("PREFECT_JOBS_BRANCHES", "60"))
CONTAINERS = int(os.environ.get("PREFECT_JOBS_DOCKER_BRANCHES", "24"))
AT_ONCE = 20
SERVERS = {"server-of-workers", "postgres"}
MIB = 1 << 20


@dataclass
class Load:
    """What a worker and its server use while something runs."""

    worker: Worker
    memory: list[int] = field(default_factory=list)
    """Of the worker, in bytes, a second apart."""

    def __post_init__(self) -> None:
        self._process = psutil.Process(self.worker.process.pid)
        self._servers = [psutil.Process(int(pid.read_text())) for pid in root().glob("*.pid") if pid.stem in SERVERS]
        self._began, self._before = time.monotonic(), self._cpu()

    async def watch(self) -> None:
        """Note the memory, for ever."""
        while True:
            self.memory.append(self._process.memory_info().rss)
            await asyncio.sleep(1)

    def _cpu(self) -> tuple[float, float]:
        """CPU seconds of the worker, and of the server with its database."""
        tree = [each for server in self._servers for each in (server, *server.children(recursive=True))]
        return sum(self._process.cpu_times()[:2]), sum(map(_seconds_of, tree))

    def figures(self, runs: int) -> str:
        """For a person, and for each of so many runs."""
        worker, server = (now - before for now, before in zip(self._cpu(), self._before, strict=True))
        quarters = [self.memory[len(self.memory) * part // 4] // MIB for part in range(4)]
        return (
            f"{runs} runs in {time.monotonic() - self._began:.0f} s; for each {worker / runs:.3f} s of CPU of the "
            f"worker, {server / runs:.3f} s of the server with its database; memory of the worker after each quarter "
            f"{quarters}, at last {self.memory[-1] // MIB} MiB"
        )


def _seconds_of(process: psutil.Process) -> float:
    """User and system time of a process, those of its children included that have ended."""
    with suppress(psutil.NoSuchProcess):  # Its parent has them then.
        return sum(process.cpu_times())
    return 0.0


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("infrastructure", "count"), [("process", PROCESSES), ("docker", CONTAINERS)])
async def test_all_runs_of_a_large_matrix_are_in_the_summary_in_order(
    infrastructure: str, count: int, start_worker: StartWorker, pool: str, mark: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue("busybox") if infrastructure == "docker" else None
    text = f"""
jobs:
  one-MARK:
    infrastructure: {infrastructure}
    {f"image: {image}" if image else ""}
    command: [sh, -c, 'test $n -ge 0']
    parameters: {{n: {{type: integer}}}}
pipelines:
  p-MARK: {{steps: {{many: {{job: one-MARK, matrix: {{n: {list(range(count))}}}, at_once: {AT_ONCE}}}}}}}
"""
    document = load_document(text.replace("MARK", mark))
    worker = await start_worker()
    await apply(document.jobs, document.pipelines, work_pool=pool)
    load = Load(worker)
    watching = asyncio.create_task(load.watch())
    there = await There(await document.pipelines[0].run()).ended(60 + 3 * count)
    watching.cancel()
    print(f"{infrastructure}: {load.figures(count)}")

    assert there.state == "Completed", there.message
    children = await there.of("many")
    assert [child.parameters["n"] for child in children] == list(range(count))
    assert [(row["index"], row["parameters"], row["outcome"]) for row in await there.run.table()] == [
        (n, f"n={n}", "succeeded") for n in range(count)
    ]
    assert most_at_once(children) <= AT_ONCE
    assert Counter(child.run_count for child in children) == {1: count}
    # What each run costs is gone when it has ended, but for a line of the table.
    assert load.memory[-1] - load.memory[len(load.memory) // 4] < (16 + 0.05 * count) * MIB


def most_at_once(runs: list[Any]) -> int:
    """How many of some runs that have ended were running at the same time."""
    now = most = 0
    for _, change in sorted([(run.start_time, 1) for run in runs] + [(run.end_time, -1) for run in runs]):
        now += change
        most = max(most, now)
    return most
