"""How long an attempt may take to start: what it waits for Prefect's API does not count."""

from __future__ import annotations

import asyncio

import pytest

from prefect_jobs.blocks.engine import FENCE, may_start
from prefect_jobs.flows.start_limit import start_limit


async def test_waiting_at_the_fence_takes_no_time_of_it() -> None:
    FENCE.set(lambda: asyncio.sleep(0.4))
    async with start_limit(0.3):
        await asyncio.sleep(0.1)
        await may_start()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("fence", [None, lambda: asyncio.sleep(0.1)], ids=["no fence", "a fence"])
async def test_what_takes_longer_is_ended(fence: object) -> None:
    FENCE.set(fence)  # type: ignore[arg-type]

    async def start() -> None:
        async with start_limit(0.2):
            await may_start()
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await start()
    assert FENCE.get() is fence
