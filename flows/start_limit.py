"""How long an attempt may take to start: the clock stands still while whoever starts it may not do so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect_jobs.blocks.engine import FENCE


@asynccontextmanager
async def start_limit(seconds: float) -> AsyncIterator[None]:
    """End what is done within it after so many seconds.

    The time for which it waits at the fence is not counted: Prefect's API is away then, and the engine may be fine.

    Raises:
        TimeoutError: it took longer.
    """
    passed, loop = FENCE.get(), asyncio.get_running_loop()
    async with asyncio.timeout(seconds) as limit:
        if passed is None:
            yield
            return

        async def waited() -> None:
            left = (limit.when() or 0.0) - loop.time()
            limit.reschedule(None)
            try:
                await passed()
            finally:
                limit.reschedule(loop.time() + left)

        token = FENCE.set(waited)
        try:
            yield
        finally:
            FENCE.reset(token)
