"""Ways to a Docker engine and to Prefect's API that can be cut and opened again, as a restart or a network would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ports import free_port

# How long an engine has to begin with a request that was held back.
_CARRY_OUT = 0.5
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
        self.held = asyncio.Event()
        """Set when a request is held back."""
        self._hold: tuple[bytes, float] | None = None

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

    def hold(self, path: str, seconds: float) -> None:
        """Hold the next request of a path back, and pass it on later even when its asker has gone by then."""
        self._hold = (path.encode(), seconds)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await self._other_side()
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

    async def _other_side(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(ENGINE)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 14):
                if asyncio.current_task() in self._dropped:
                    continue
                self.passed += len(data) if count else 0
                held = self._hold
                if held is not None and not count and held[0] in data.partition(b"\r\n")[0]:
                    self._hold = None
                    self.held.set()
                    # Whoever asked may be gone by then, and is not looked for.
                    await asyncio.sleep(held[1])
                else:
                    held = None
                writer.write(data)
                await writer.drain()
                if held is not None:
                    await asyncio.sleep(_CARRY_OUT)


@asynccontextmanager
async def proxy_at(path: Path) -> AsyncIterator[Proxy]:
    """An open proxy."""
    proxy = Proxy(path)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()


class ApiProxy(Proxy):
    """A port before a Prefect API, shut until it is opened, which counts the requests."""

    def __init__(self, api: str) -> None:
        super().__init__(Path("unused"))
        self._api = urlsplit(api)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}{self._api.path}"
        self.refuses_streams = False
        """Whether websockets are turned away."""
        self.requests: Counter[str] = Counter()
        """Method and path, ids left out."""

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)

    async def shut(self) -> None:
        """Take no more connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def _other_side(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._api.hostname, self._api.port)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        if count:
            return await super()._pipe(reader, writer, count)
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 14):
                heads = rest + data
                for method, path in _REQUEST.findall(heads):
                    self.requests[f"{method.decode()} {_ID.sub('{id}', path.decode())}"] += 1
                if self.refuses_streams and b"upgrade: websocket" in heads.lower():
                    return
                # A request's first line may come in two pieces.
                rest = heads[-200:].rpartition(b"\n")[2]
                writer.write(data)
                await writer.drain()


_REQUEST = re.compile(rb"(GET|POST|PATCH|PUT|DELETE) (/\S+) HTTP/1\.1\r\n")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}")


@asynccontextmanager
async def api_proxy(api: str) -> AsyncIterator[ApiProxy]:
    """An open proxy before an API."""
    proxy = ApiProxy(api)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
