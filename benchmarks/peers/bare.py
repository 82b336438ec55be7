"""The bare Docker API: what the engine can do, with nobody who looks after anything."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from uuid import uuid4

from benchmarks.measure import Attributes
from benchmarks.peers.peer import COMMANDS, Asked, Ground, Kind, Peer, Serving

PREFIX = "prefect-jobs-bench"


class _BareServing(Serving):
    def __init__(self, process: asyncio.subprocess.Process, image: str) -> None:
        super().__init__([process.pid], [])
        self._process = process
        self._image = image
        self._ended: dict[str, float] = {}

    async def start(self, kind: Kind, count: int) -> list[Asked]:
        prefix = f"{PREFIX}-{uuid4().hex[:8]}"
        line = json.dumps([count, prefix, self._image, *COMMANDS[kind]])
        assert self._process.stdin is not None
        asked = [Asked(f"{prefix}-{number}", time.time()) for number in range(count)]
        self.asked |= {each.key for each in asked}
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()
        return asked

    async def ended(self, asked: list[Asked]) -> float:
        assert self._process.stdout is not None
        prefix = asked[0].key.rpartition("-")[0]
        while prefix not in self._ended:
            line = await self._process.stdout.readline()
            if not line:
                raise RuntimeError("the Docker API's client has ended; see what it printed above")
            ended, moment = line.decode().split()
            self._ended[ended] = float(moment)
        return self._ended[prefix]

    def key(self, attributes: Attributes) -> str | None:
        return attributes.get("name")


class Bare(Peer):
    name = "bare"
    title = "Docker API alone"

    @asynccontextmanager
    async def up(self, ground: Ground, at_once: int, *, counting: bool = False) -> AsyncIterator[Serving]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.peers.bare_client", str(at_once)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ,
            start_new_session=True,
        )
        try:
            yield _BareServing(process, ground.image)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def versions(self) -> dict[str, str]:
        return {"aiodocker": version("aiodocker")}
