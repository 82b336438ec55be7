"""Containers that write numbered lines, and what their runs look like when nobody's death shows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Counting:
    """A container that says how often the run's container was started, then writes numbered lines, then ends."""

    lines: int = 200
    pause: float = 0.01
    """Seconds between two lines."""
    exit_code: int = 3

    @property
    def command(self) -> list[str]:
        """Counts its own starts in the folder that all attempts share."""
        return [
            "sh",
            "-c",
            "echo x >> $JOB_CHECKPOINT_DIR/starts; echo starts $(wc -l < $JOB_CHECKPOINT_DIR/starts)\n"
            f"i=0; while [ $i -lt {self.lines} ]; do echo line $i; i=$((i+1)); sleep {self.pause:g}; done; "
            f"exit {self.exit_code}",
        ]

    @property
    def expected(self) -> list[str]:
        """All that the run's log holds of it, in this order."""
        return ["starts 1", *(f"line {number}" for number in range(self.lines))]


@asynccontextmanager
async def container_starts(job: str) -> AsyncIterator[Counter[str]]:
    """Counts the containers of a job that the Docker engine starts from now on, by the id of their run."""
    words = ("--filter", "type=container", "--filter", "event=start", "--filter", f"label=prefect-jobs/job={job}")
    process = await asyncio.create_subprocess_exec(
        "docker", "events", *words, "--format", '{{ index .Actor.Attributes "prefect-jobs/run-id" }}',
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    seen: Counter[str] = Counter()

    async def count() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            seen[line.decode().strip()] += 1

    counting = asyncio.create_task(count())
    try:
        yield seen
    finally:
        process.terminate()
        await asyncio.gather(counting, process.wait())
