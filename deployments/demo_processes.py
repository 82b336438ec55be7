"""The demo's background processes: started in sessions of their own, ended with everything below them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

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
        pid = self.process.pid
        _signal([pid], signal.SIGSTOP)  # It starts nothing more while those below it are counted.
        everything = [pid, *below(pid)]
        _signal(everything, signal.SIGTERM)
        _signal([pid], signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.process.wait()
                while any(map(_is_alive, everything)):  # noqa: ASYNC110 - nobody tells of the end of a child's child.
                    await asyncio.sleep(0.05)
        except TimeoutError:
            _signal(everything, signal.SIGKILL)
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


def end_group(pid: int) -> None:
    """Kill a process group, if there is one of that number."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def below(pid: int) -> list[int]:
    """All processes below a process."""
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found, look_at = [], [pid]
    while look_at:
        look_at = [child for parent in look_at for child in children.get(parent, [])]
        found += look_at
    return found


def _processes() -> list[tuple[int, int]]:
    """Every process with its parent: from proc(5) where the system has it, else from ps(1)."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)  # noqa: S607
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold anything; the state and the parent follow it.
            found.append((int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])))
    return found


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
