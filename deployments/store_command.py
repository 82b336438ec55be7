"""What ``prefect-jobs store check`` does."""

from __future__ import annotations

import asyncio

from prefect_jobs.blocks.loading import load_store


def check_store(name: str) -> int:
    """Do with a saved store what a job does, on a small object; the exit code.

    Raises:
        NotFoundError: no block of that name is saved.
        StoreError: a step failed.
    """

    async def check() -> None:
        block = await load_store(name)
        print(f"{block.label}: {block.url}")
        await block.check()

    asyncio.run(check())
    return 0
