"""One connection to a Docker engine, and the one event stream that tells the ends of all its containers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import aiodocker

from prefect_jobs.blocks.docker_client import client_for, delays, is_away, logger, request

# The label by which this project's containers are known.
MINE = "prefect-jobs/run-id"


class Connection:
    """A client and the one event stream that tells all its containers' ends."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self.client = client
        self.users = 0
        self._waiting: set[tuple[str, asyncio.Event]] = set()
        self._watcher: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def end_of(self, container_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the container may have ended; ask the engine whether it has."""
        event = asyncio.Event()
        event.set()
        self._waiting.add((container_id, event))
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="prefect-jobs: Docker events")
        try:
            yield event
        finally:
            self._waiting.discard((container_id, event))

    async def _watch(self) -> None:
        filters = json.dumps({"type": ["container"], "event": ["die", "destroy"], "label": [MINE]})
        async for _ in delays():
            try:
                async with request(self.client, "GET", "events", params={"filters": filters}) as response:
                    # Whatever ended while nobody listened is found by asking once.
                    self._ring()
                    async for line in response.content:
                        self._ring(json.loads(line)["Actor"]["ID"])
            except Exception as error:
                # Events only wake: whatever one of them holds, those who wait ask the engine, and the stream goes on.
                if not is_away(error):
                    logger.warning("An event of the Docker engine could not be read: %r", error)
                self._ring()

    def _ring(self, container_id: str | None = None) -> None:
        """Wake who waits for a container, or everybody."""
        for waited_for, event in self._waiting:
            if container_id in (None, waited_for):
                event.set()

    async def close(self) -> None:
        """Stop listening and let go of the sockets."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.client.close()


_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | None, Connection]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_connection(url: str | None) -> AsyncIterator[Connection]:
    """The event loop's connection to the engine at a URL; made by its first user and closed by its last."""
    shared = _connections.setdefault(asyncio.get_running_loop(), {})
    connection = shared.get(url)
    if connection is None:
        connection = shared[url] = Connection(client_for(url))
    connection.users += 1
    try:
        yield connection
    finally:
        connection.users -= 1
        if connection.users == 0:
            del shared[url]
            await connection.close()
