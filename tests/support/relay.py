"""A way to Prefect's API that can be opened and shut, while the server behind it goes on for everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from urllib.parse import urlsplit

from ports import free_port


class Relay:
    """A port before the API's own; shut until it is opened."""

    def __init__(self) -> None:
        self._port = free_port()
        self._behind = urlsplit(os.environ["PREFECT_API_URL"])
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.url = f"http://127.0.0.1:{self._port}/api"

    async def open(self) -> None:
        """Let everything through."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)

    async def shut(self) -> None:
        """Refuse connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pipe in list(self._pipes):
            pipe.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._behind.hostname, self._behind.port)
        pipes = {asyncio.create_task(self._pipe(reader, back)), asyncio.create_task(self._pipe(there, writer))}
        self._pipes |= pipes
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        self._pipes -= pipes
        writer.transport.abort()
        back.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
