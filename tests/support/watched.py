"""What this process takes while it does something: memory, and how long its event loop stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

MIB = 2**20


class Watched:
    """The most memory of this process, and the longest time that the event loop stood still."""

    memory = 0
    lag = 0.0

    def __str__(self) -> str:
        return f"{self.memory / MIB:.0f} MiB more, lag {self.lag:.3f} s"


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    process, seen = psutil.Process(), Watched()
    before = process.memory_info().rss

    async def look() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            seen.lag = max(seen.lag, time.monotonic() - began - 0.01)
            seen.memory = max(seen.memory, process.memory_info().rss - before)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
