"""A way to a Docker engine that can be cut and opened again, as a restart of the engine or of a network would."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class Proxy:
    """A socket before the engine's own."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._dropped: set[asyncio.Task[None]] = set()
        self.passed = 0
        """How many bytes the engine has sent through it."""

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_unix_server(self._connect, self._path)

    async def shut(self) -> None:
        """Take no more connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Drop all connections, in the middle of whatever they say; new ones may be made at once."""
        for pipe in list(self._pipes):
            pipe.cancel()

    def drop(self) -> None:
        """Let nothing through the connections there are, and tell nobody; new ones may be made."""
        self._dropped.update(self._pipes)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE)
        pipes = [
            asyncio.create_task(self._pipe(reader, engine_writer)),
            asyncio.create_task(self._pipe(engine_reader, writer, count=True)),
        ]
        self._pipes.update(pipes)
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
            self._pipes.discard(pipe)
        writer.transport.abort()
        engine_writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 14):
                if asyncio.current_task() in self._dropped:
                    continue
                self.passed += len(data) if count else 0
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxy_at(path: Path) -> AsyncIterator[Proxy]:
    """An open proxy."""
    proxy = Proxy(path)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
