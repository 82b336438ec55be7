"""What containers use, as their Docker engine measures it while they run: afterwards the engine forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiodocker

from prefect_jobs.blocks.docker_client import AWAY, request

# A container is looked at once a second while there are few, and so many of them in a second when there are many: the
# engine reads a dozen files for each look.
_EVERY, _LOOKS_PER_SECOND = 1.0, 50
# Most of what ends at once has ended by then.
_FIRST = 0.25
_LONGEST = 5.0


class Usage:
    """The latest CPU time and the highest memory of one container that were seen.

    It is looked at once a second, and less often where the engine runs more than fifty, so that the last second may be
    missing, and a container that ends at once may have none at all.
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


class Meter:
    """Looks at all containers of one engine that somebody waits for, one after the other."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self._client = client
        self._due: dict[Usage, tuple[str, float]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def measured(self, container_id: str, usage: Usage) -> Iterator[None]:
        """Keep what a container uses up to date."""
        self._due[usage] = (container_id, asyncio.get_running_loop().time() + _FIRST)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="prefect-jobs: usage of containers")
        try:
            yield
        finally:
            self._due.pop(usage, None)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due:
            usage, (container_id, at) = min(self._due.items(), key=lambda each: each[1][1])
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(min(wait, _FIRST))
                continue
            with contextlib.suppress(*AWAY, aiodocker.DockerError, ValueError, KeyError, TypeError):
                async with asyncio.timeout(_LONGEST):
                    await self._sample(container_id, usage)
            if usage in self._due:
                pause = max(_EVERY, len(self._due) / _LOOKS_PER_SECOND)
                self._due[usage] = (container_id, max(at + pause, loop.time()))

    async def _sample(self, container_id: str, usage: Usage) -> None:
        options = {"stream": "false", "one-shot": "true"}
        async with request(self._client, "GET", f"containers/{container_id}/stats", params=options) as response:
            usage.add(json.loads(await response.read()))
