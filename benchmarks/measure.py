"""CPU and memory of process trees, and the moments at which containers start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiodocker
import psutil

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Start:
    """A container that has started."""

    container: str
    """Its id."""
    attributes: Attributes
    moment: float
    """In Unix seconds."""


def tree(pids: Iterable[int]) -> list[psutil.Process]:
    """Processes and all that is below them."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system seconds of process trees so far, with those of processes that have ended and were waited for."""
    total = 0.0
    for process in tree(pids):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(pids: Iterable[int]) -> int:
    """The proportional set size of process trees, in bytes (proc(5), smaps_rollup)."""
    total = 0
    for process in tree(pids):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


class Starts:
    """The moments at which containers started, as the engine's event stream tells them."""

    def __init__(self) -> None:
        self._known: list[Start] = []
        self._changed = asyncio.Condition()

    async def put(self, start: Start) -> None:
        async with self._changed:
            self._known.append(start)
            self._changed.notify_all()

    async def of(
        self, keys: Iterable[str], key: Callable[[Attributes], str | None], seconds: float
    ) -> dict[str, Start]:
        """The first start of each of these runs, once all have started.

        Raises:
            TimeoutError: some did not start within so many seconds.
        """
        wanted = set(keys)
        deadline = time.monotonic() + seconds
        async with self._changed:
            while True:
                found: dict[str, Start] = {}
                for start in self._known:
                    if (name := key(start.attributes)) in wanted:
                        found.setdefault(str(name), start)
                if len(found) == len(wanted):
                    return found
                try:
                    await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
                except TimeoutError:
                    raise TimeoutError(
                        f"{len(found)} of {len(wanted)} containers started within {seconds:g} s"
                    ) from None


@asynccontextmanager
async def container_starts(docker: aiodocker.Docker) -> AsyncIterator[Starts]:
    """The starts of all containers from now on."""
    starts = Starts()
    since = time.time()
    filters = '{"type": ["container"], "event": ["start"]}'

    async def listen() -> None:
        events = docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
        reading = asyncio.create_task(docker.events.run(filters=filters, since=f"{since:.6f}"))
        try:
            while (event := await events.get()) is not None:
                actor = event["Actor"]
                await starts.put(Start(actor["ID"], actor["Attributes"], event["timeNano"] / 1e9))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    listening = asyncio.create_task(listen())
    try:
        yield starts
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
