"""One connection to a Docker engine, and the one event stream that tells what becomes of all its containers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiodocker

from prefect_jobs.blocks.docker_client import client_for, delays, is_away, logger, request
from prefect_jobs.blocks.docker_usage import Meter
from prefect_jobs.blocks.sharing import Shared

# The label by which this project's containers are known.
MINE = "prefect-jobs/run-id"


class Signal(NamedTuple):
    """A signal that was sent to a container through the engine."""

    sent: datetime
    """By the engine's clock."""
    number: int


class Heard:
    """What the engine has told of one container in all its watches."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        """The signals that were sent to it through the engine, whoever asked for them."""
        self.out_of_memory = asyncio.Event()
        """Set when the kernel has killed something in it for memory; at times only after it has ended."""


class Watch:
    """What the engine tells of one container from now on."""

    def __init__(self, container: str, heard: Heard) -> None:
        self.container = container
        """Its id, or its name."""
        self.may_have_ended = asyncio.Event()
        """Set whenever the container may have ended; ask the engine whether it has."""
        self.may_have_ended.set()
        self.heard = heard
        self.engine_left: datetime | None = None
        """When the engine was last seen to go away."""
        self.engine_back: datetime | None = None
        """When it was there again after that."""


class Connection:
    """A client and the one event stream that tells what becomes of all its containers."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self.client = client
        self.meter = Meter(client)
        self._watches: set[Watch] = set()
        self._watcher: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, container: str, heard: Heard) -> AsyncIterator[Watch]:
        """What the engine tells of a container, by its id or name, while this goes on; ``heard`` is added to."""
        watch = Watch(container, heard)
        self._watches.add(watch)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._listen(), name="prefect-jobs: Docker events")
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def _listen(self) -> None:
        filters = json.dumps({"type": ["container"], "event": ["die", "destroy", "kill", "oom"], "label": [MINE]})
        waits = delays()
        while True:
            await anext(waits)
            try:
                async with request(self.client, "GET", "events", params={"filters": filters}) as response:
                    waits = delays()
                    await anext(waits)
                    # Whatever ended while nobody listened is found by asking once.
                    self._find()
                    async for line in response.content:
                        self._tell(json.loads(line))
                self._lose()
            except Exception as error:
                # Events only wake: whatever one of them holds, those who wait ask the engine, and the stream goes on.
                if not is_away(error):
                    logger.warning("An event of the Docker engine could not be read: %r", error)
                self._lose()

    def _tell(self, event: dict[str, Any]) -> None:
        actor = event["Actor"]
        for watch in self._watches:
            if watch.container not in (actor["ID"], actor["Attributes"].get("name")):
                continue
            if event["Action"] == "kill":
                sent = datetime.fromtimestamp(event["timeNano"] / 1e9, UTC)
                watch.heard.signals.append(Signal(sent, int(actor["Attributes"]["signal"])))
            elif event["Action"] == "oom":
                watch.heard.out_of_memory.set()
            else:
                watch.may_have_ended.set()

    def _lose(self) -> None:
        for watch in self._watches:
            if watch.engine_left is None or watch.engine_back is not None:
                watch.engine_left, watch.engine_back = datetime.now(UTC), None
        self._wake_all()

    def _find(self) -> None:
        for watch in self._watches:
            if watch.engine_left is not None and watch.engine_back is None:
                watch.engine_back = datetime.now(UTC)
        self._wake_all()

    def _wake_all(self) -> None:
        for watch in self._watches:
            watch.may_have_ended.set()

    async def close(self) -> None:
        """Stop listening and let go of the sockets."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.meter.close()
        await self.client.close()


_SHARED: Shared[str | None, Connection] = Shared(lambda url: Connection(client_for(url)))


def shared_connection(url: str | None) -> AbstractAsyncContextManager[Connection]:
    """The event loop's connection to the engine at a URL."""
    return _SHARED.use(url)
