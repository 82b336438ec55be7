"""Workers of the type prefect-jobs: each a process of its own, as a person starts it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from reach import BIN, until
from session import root

StartWorker = Callable[..., Awaitable["Worker"]]


class Worker:
    """One worker, and what it said."""

    def __init__(self, pool: str, name: str, *options: str, **environment: str) -> None:
        self.pool = pool
        self.name = name
        self._options = options
        # As people have it: between two polls a worker hears of runs by events.
        self._environment = {"PREFECT_WORKER_QUERY_SECONDS": "10", "PREFECT_LOGGING_LEVEL": "INFO", **environment}
        self._log = root() / f"worker-{pool}-{name}.log"
        self.process: asyncio.subprocess.Process

    async def start(self, seconds: float = 60) -> Worker:
        """Start it, and wait until it says that it has."""
        words = ("worker", "start", "--pool", self.pool, "--type", "prefect-jobs", "--name", self.name, *self._options)
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                BIN / "prefect", *words, stdout=log, stderr=log, env=os.environ | self._environment,
                cwd=root(), start_new_session=True,
            )  # fmt: skip
        if seconds:
            await self.says("started!", seconds)
        return self

    @property
    def said(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    async def says(self, words: str, seconds: float = 60) -> None:
        """Wait until it has said something."""

        async def has_said() -> bool:
            assert self.process.returncode is None or words in self.said, self.said[-3000:]
            return words in self.said

        try:
            await until(has_said, seconds, f"{self.name} says {words!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said[-3000:]}") from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it, and not to what it started."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> None:
        """Let it die at once."""
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, seconds: float = 30) -> int:
        """Tell it to end; its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(seconds)

    async def ended(self, seconds: float = 30) -> int:
        """Wait for its end; its exit code."""
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s\n{self.said[-3000:]}") from None


@asynccontextmanager
async def workers_of(pool: str, **environment: str) -> AsyncIterator[StartWorker]:
    """Starts workers of a pool, of which none is left in the end."""
    started: list[Worker] = []

    async def start(*options: str, name: str | None = None, seconds: float = 60, **more: str) -> Worker:
        worker = Worker(pool, name or f"w{len(started) + 1}", *options, **{**environment, **more})
        started.append(worker)
        return await worker.start(seconds)

    try:
        yield start
    finally:
        for worker in started:
            with suppress(AttributeError):
                worker.signal(signal.SIGCONT)
                await worker.kill()
        for worker in started:
            print(f"--- {worker.pool} {worker.name}\n{worker.said[-6000:]}")


def said_by(pool: str) -> list[Path]:
    """The logs of a pool's workers."""
    return sorted(root().glob(f"worker-{pool}-*.log"))
