"""What a container uses, as its Docker engine measures it while it runs: afterwards the engine forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiodocker

from prefect_jobs.blocks.docker_client import AWAY, delays, request


class Usage:
    """The latest CPU time and the highest memory of one container that were seen.

    The engine measures once a second, so that the last second may be missing, and a container that ends at once may
    have none at all.
    """

    def __init__(self) -> None:
        self.cpu_seconds: float | None = None
        self.peak_memory: int | None = None

    def add(self, sample: dict[str, Any]) -> None:
        """Take in a sample (Engine API, "Get container stats based on resource usage"); one of nothing is left out."""
        memory = sample.get("memory_stats") or {}
        if not memory.get("usage"):
            return
        self.cpu_seconds = sample["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        # Control groups of version 1 know their highest usage, those of version 2 only the present one.
        self.peak_memory = max(self.peak_memory or 0, memory["usage"], memory.get("max_usage", 0))


@asynccontextmanager
async def measured(client: aiodocker.Docker, container_id: str, usage: Usage) -> AsyncIterator[None]:
    """Keep what the container uses up to date in the background."""
    sampling = asyncio.create_task(_sample(client, container_id, usage), name="prefect-jobs: usage of a container")
    try:
        yield
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


async def _sample(client: aiodocker.Docker, container_id: str, usage: Usage) -> None:
    path = f"containers/{container_id}/stats"
    async for _ in delays():
        with contextlib.suppress(*AWAY, aiodocker.DockerError):
            # At once, and then with the engine's own pace: its stream begins a second later.
            for options in ({"stream": "false", "one-shot": "true"}, {"stream": "true"}):
                async with request(client, "GET", path, params=options) as response:
                    async for line in response.content:
                        usage.add(json.loads(line))
