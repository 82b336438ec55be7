"""The demo's background processes: started in sessions of their own, ended with everything below them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from prefect_jobs.errors import InfrastructureError

T = TypeVar("T")


class Background:
    """A ``prefect`` command that serves in the background; what it writes goes to a log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(cls, name: str, log: Path, environment: Mapping[str, str], *arguments: str) -> Background:
        """Start ``prefect ARGUMENTS`` of this Python, in the log's folder."""
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prefect", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=log.parent,
                env=environment,
                start_new_session=True,
            )
        return cls(name, process, log)

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines that it wrote."""
        return self.log.read_text(errors="replace").rstrip().splitlines()[-lines:]

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Send SIGTERM to it and to everything below it, SIGKILL after the grace period; return when all are gone."""
        if self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGSTOP)  # It starts nothing more while those below it are counted.
        try:
            everything = [psutil.Process(self.process.pid), *below(self.process.pid)]
        except psutil.NoSuchProcess:  # It has ended, and the event loop is about to hear of it.
            await self.process.wait()
            return
        _send(everything, signal.SIGTERM)
        _send(everything[:1], signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.process.wait()
                while any(map(_is_alive, everything)):  # noqa: ASYNC110 - nobody tells of the end of a child's child.
                    await asyncio.sleep(0.05)
        except TimeoutError:
            _send(everything, signal.SIGKILL)
            await self.process.wait()


async def while_serving(work: Coroutine[Any, Any, T], *needed: Background, seconds: float, what: str) -> T:
    """The result of work that needs background processes.

    Raises:
        InfrastructureError: one of the processes ended meanwhile, or the work took longer than its time.
    """
    task = asyncio.create_task(work)
    endings = [asyncio.create_task(each.process.wait()) for each in needed]
    try:
        await asyncio.wait([task, *endings], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        for each in needed:
            if each.process.returncode is not None:
                raise InfrastructureError(f"the {each.name} ended by itself, with exit code {each.process.returncode}")
        raise InfrastructureError(f"{what} took longer than {seconds:g} s")
    finally:
        for waiting in (task, *endings):
            waiting.cancel()
        await asyncio.gather(task, *endings, return_exceptions=True)


def below(pid: int) -> list[psutil.Process]:
    """All processes below a process."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
