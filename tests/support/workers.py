"""Workers of the type prefect-jobs: each a process of its own, as a person starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from reach import BIN, until
from session import root

StartWorker = Callable[..., Awaitable["Worker"]]


class Worker:
    """A command that starts a worker, what it said, and the ports at which it is looked at."""

    process: asyncio.subprocess.Process

    def __init__(self, *words: str | Path, name: str = "worker", **environment: str) -> None:
        self._words = words
        self.name = name
        self.health_port, self.metrics_port = free_port(), free_port()
        self._environment = {
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.health_port),
            "PREFECT_CLIENT_METRICS_ENABLED": "true",
            "PREFECT_CLIENT_METRICS_PORT": str(self.metrics_port),
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._log = root() / f"worker-{name}-{uuid4().hex[:8]}.log"

    async def start(self, seconds: float = 60) -> Worker:
        """Start it, and wait until it says that it has, for so many seconds; not at all with 0."""
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(BIN / self._words[0], *self._words[1:]), stdout=log, stderr=log,
                env=os.environ | self._environment, cwd=root(), start_new_session=True,
            )  # fmt: skip
        if seconds:
            await self.says(" started!", seconds)
        return self

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self._log.read_text()

    async def says(self, words: str, seconds: float = 60) -> None:
        """Wait until it has written something."""

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

    async def stop(self, seconds: float = 60) -> int:
        """Tell it to end; its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(seconds)

    async def ended(self, seconds: float = 90) -> int:
        """Wait for its end; its exit code."""
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s\n{self.said[-3000:]}") from None

    def health(self) -> int | None:
        """The status that its health endpoint answers with; None where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/health", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    async def is_healthy(self) -> bool:
        """Whether it says that it is well."""
        return await asyncio.to_thread(self.health) == 200

    async def is_ill(self) -> bool:
        """Whether it says that it should be restarted."""
        return await asyncio.to_thread(self.health) == 503

    def figures(self) -> dict[str, float]:
        """Every figure of this project that it serves, by its name and labels: ``runs_ended_total{Failed}``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return {
            name.removeprefix("prefect_jobs_") + (f"{{{','.join(labels.values())}}}" if labels else ""): value
            for name, labels, value, *_ in samples
            if name.startswith("prefect_jobs_")
        }


@asynccontextmanager
async def worker(*words: str | Path, env: dict[str, str] | None = None, started: bool = True) -> AsyncIterator[Worker]:
    """A command that starts a worker, running; whatever becomes of it, it is gone in the end."""
    there = Worker(*words, **(env or {}))
    try:
        yield await there.start(60 if started else 0)
    finally:
        if there.process.returncode is None:
            with suppress(AssertionError):
                await there.stop(30)
        await _gone(there)


@asynccontextmanager
async def workers_of(pool: str, **environment: str) -> AsyncIterator[StartWorker]:
    """Starts workers of a pool, of which none is left in the end."""
    started: list[Worker] = []
    # As people have it: between two polls a worker hears of runs by events.
    usual = {"PREFECT_WORKER_QUERY_SECONDS": "10", **environment}

    async def start(*options: str, name: str | None = None, seconds: float = 60, **more: str) -> Worker:
        name = name or f"w{len(started) + 1}"
        words = ("prefect", "worker", "start", "--pool", pool, "--type", "prefect-jobs", "--name", name, *options)
        there = Worker(*words, name=name, **{**usual, **more})
        started.append(there)
        return await there.start(seconds)

    try:
        yield start
    finally:
        for each in started:
            await _gone(each)


async def _gone(worker: Worker) -> None:
    with suppress(AttributeError):  # It was never started.
        worker.signal(signal.SIGCONT)
        await worker.kill()
        print(f"--- {worker.name}\n{worker.said[-6000:]}")
