"""Workers of this project's type, each in a process of its own, and the ports at which they are looked at."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from reach import BIN, until
from session import root


@dataclass(frozen=True)
class Worker:
    """A worker in a process of its own."""

    process: asyncio.subprocess.Process
    log: Path
    health_port: int
    metrics_port: int

    def said(self) -> str:
        """All that it wrote."""
        return self.log.read_text()

    async def says(self, words: str, seconds: float = 60) -> None:
        """Wait until it has written something."""

        async def is_there() -> bool:
            if self.process.returncode is not None and words not in self.said():
                raise AssertionError(f"the worker ended: {self.said()}")
            return words in self.said()

        await until(is_there, seconds, f"{words!r} of the worker")

    async def end(self, seconds: float = 90) -> int:
        """Wait until it has ended by itself; its exit code."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Tell it to stop, and wait until it has; its exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.end(seconds)

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
    health_port, metrics_port = free_port(), free_port()
    log = root() / f"worker-{uuid4().hex[:8]}.log"
    settings = {
        "PREFECT_WORKER_WEBSERVER_PORT": str(health_port),
        "PREFECT_CLIENT_METRICS_ENABLED": "true",
        "PREFECT_CLIENT_METRICS_PORT": str(metrics_port),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(BIN / words[0], *words[1:]),
            env={**os.environ, **settings},
            cwd=root(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    there = Worker(process, log, health_port, metrics_port)
    try:
        if started:
            await there.says(" started!")
        yield there
    finally:
        if process.returncode is None:
            with suppress(TimeoutError):
                await there.stop(seconds=30)
        if process.returncode is None:
            process.kill()
            await process.wait()
