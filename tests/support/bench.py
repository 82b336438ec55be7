"""An engine on which a test runs attempts, and which is clean again when the test is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from prefect_jobs.blocks.engine import Container, Engine, LogLine
from prefect_jobs.blocks.files import NOTHING_STAGED, Staged
from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.outcome import Outcome
from prefect_jobs.spec import ContainerSpec, Identity


@dataclass(frozen=True)
class Ended:
    """An attempt that has ended: how, and all that it wrote."""

    outcome: Outcome
    lines: list[LogLine]

    @property
    def texts(self) -> list[str]:
        """Its lines without their times, stdout and stderr as they came."""
        return [line.text for line in self.lines]


class Bench:
    """An engine, and the attempts that were launched on it."""

    def __init__(self, block: Infrastructure, engine: Engine, image: str | None) -> None:
        self.block = block
        self.engine = engine
        self.image = image
        self.told: list[str] = []
        """What the engine told the person who watches."""
        self._used: dict[UUID, set[Identity]] = {}

    def identity(self, run_id: UUID | None = None, **fields: Any) -> Identity:
        """An attempt of a run: of a new one where none is given."""
        run_id = run_id or uuid4()
        identity = Identity(**{"job": "bench", "version": "v1", "run_name": "a run", **fields, "run_id": run_id})
        self._used.setdefault(run_id, set()).add(identity)
        return identity

    def spec(self, *command: str, **fields: Any) -> ContainerSpec:
        """A container of the bench's image."""
        return ContainerSpec(**{"image": self.image, "command": list(command) or None, **fields})

    def sh(self, script: str, **fields: Any) -> ContainerSpec:
        """A container that runs a script for ``sh``."""
        return self.spec("sh", "-c", script, **fields)

    async def launch(
        self,
        spec: ContainerSpec,
        identity: Identity | None = None,
        secrets: Mapping[str, str] | None = None,
        staged: Staged = NOTHING_STAGED,
    ) -> Container:
        """Launch an attempt: the first of a new run where none is given."""
        return await self.engine.launch(spec, identity or self.identity(), secrets or {}, self.told.append, staged)

    async def run(
        self, spec: ContainerSpec, identity: Identity | None = None, secrets: Mapping[str, str] | None = None
    ) -> Ended:
        """Launch an attempt and wait until it has ended."""
        return await self.end_of(await self.launch(spec, identity, secrets))

    async def end_of(self, container: Container) -> Ended:
        """Wait for a container while its lines are read."""
        async with asyncio.timeout(60):
            lines, outcome = await asyncio.gather(read(container), container.wait())
        return Ended(outcome, lines)

    async def clean(self) -> None:
        """Remove all that was launched."""
        for run_id, identities in self._used.items():
            for identity in identities:
                await self.engine.discard(identity)
            await self.engine.release(run_id)


async def read(container: Container, **options: Any) -> list[LogLine]:
    """All lines of a container's log, until it ends."""
    return [line async for line in container.logs(**options)]


async def first_line(container: Container) -> str:
    """The first line that a container writes, as soon as it does."""
    logs: Any = container.logs()
    async with asyncio.timeout(30), aclosing(logs) as lines:
        async for line in lines:
            return str(line.text)
    raise AssertionError("the container ended without a line")


@asynccontextmanager
async def bench_on(block: Infrastructure, image: str | None = None) -> AsyncIterator[Bench]:
    """A bench on a block, cleaned at the end."""
    async with block.engine() as engine:
        bench = Bench(block, engine, image)
        try:
            yield bench
        finally:
            await bench.clean()
