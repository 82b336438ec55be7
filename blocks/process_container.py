"""One process behind its shim, as its supervisor sees it: through the shim's folder and socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect_jobs.blocks.engine import Container, LogLine, Stream
from prefect_jobs.blocks.files import Folder, Left, left_in
from prefect_jobs.blocks.moments import Moments
from prefect_jobs.blocks.process_remains import kill_remains, started
from prefect_jobs.outcome import Outcome, Reason, signal_words
from prefect_jobs.spec import Identity

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS.
_LONGEST_SOCKET_PATH = 100
# How long a shim that is told to stop its process may take to answer, before both are killed from outside.
_ANSWER_SECONDS = 10.0
# Few enough lines that handing them on does not hold up others for long.
_READ = 1 << 18
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class ProcessContainer(Container):
    """One process behind its shim."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity

    @property
    def place(self) -> str:
        """The attempt's folder."""
        return f"the folder {self.folder}"

    @property
    def told_to_stop(self) -> bool:
        """What the shim wrote down."""
        return bool((self._end() or {}).get("asked_to_stop"))

    async def logs(self, after: datetime | None = None) -> AsyncIterator[LogLine]:
        """The lines of the shim's log; the shim says when there are more."""
        moments, rest = Moments(), b""
        async with contextlib.aclosing(self._news()) as news:
            await anext(news)
            async with _opened(self.folder / "log") as log:
                more = True
                while more:
                    more = await anext(news, None) is not None
                    while data := await asyncio.to_thread(log.read, _READ):
                        *records, rest = (rest + data).split(b"\n")
                        for record in records:
                            when, stream, text = record.split(b" ", 2)
                            moment = moments.of(int(when))
                            if after is None or moment > after:
                                name: Stream = "stdout" if stream == b"o" else "stderr"
                                yield LogLine(moment, name, text.decode("utf-8", "replace"))
        if (end := self._end()) and (words := _about_lost_lines(end)):
            moment = moments.of(end["ended"])
            if after is None or moment > after:
                yield LogLine(moment, "stderr", f"prefect-jobs: {words}")

    async def wait(self) -> Outcome:
        """Wait for the shim to end, then read how the process did."""
        async with contextlib.aclosing(self._news()) as news:
            async for _ in news:
                pass
        end = self._end()
        if end is None:
            return self._without_end()
        if end["failure"]:
            return self._outcome(
                Reason.LOST,
                f"the shim of the process failed and killed it ({end['failure']}); mend that and start the run again",
            )
        code: int = end["code"]
        reason, words = Reason.of(code), signal_words(code)
        if end["asked_to_stop"]:
            words = "it was told to stop"
        elif end["out_of_memory"]:
            reason = Reason.OUT_OF_MEMORY
            words = (
                "the kernel killed it because the machine, or the group of processes it belongs to, was out of memory "
                f"(it used up to {end['peak_memory'] / 2**20:.0f} MiB); give it a machine with more, or let it use less"
            )
        return self._outcome(
            reason,
            "; ".join(filter(None, (words, _about_lost_lines(end)))),
            exit_code=code,
            started=datetime.fromtimestamp(end["started"] / 1e9, UTC),
            ended=datetime.fromtimestamp(end["ended"] / 1e9, UTC),
            cpu_seconds=end["cpu_seconds"],
            peak_memory=end["peak_memory"],
        )

    def _end(self) -> dict[str, Any] | None:
        return end_in(self.folder)

    def _without_end(self) -> Outcome:
        if started(self.folder).get("given_up"):
            return self._outcome(
                Reason.UNSCHEDULABLE, "its shim did not start in time and was given up; start the run again"
            )
        return self._outcome(
            Reason.LOST,
            "the process and its shim are gone without a trace of how it ended: the machine restarted, or "
            "somebody killed both; start the run again",
        )

    def _outcome(self, reason: Reason, message: str, **fields: Any) -> Outcome:
        return Outcome(reason=reason, attempt=self.identity.attempt, message=message, **fields)

    async def age(self) -> float:
        """By this machine's clock: seconds since the shim wrote down the start."""
        begun = started(self.folder).get("at")
        return 0.0 if begun is None else max(0.0, (time.time_ns() - begun) / 1e9)

    async def stop(self, grace_seconds: float) -> None:
        """Stop the whole process group; what the shim cannot stop any more is killed without it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                shim = await self._connect()
            with contextlib.closing(shim):
                for order, seconds in ((b"T", grace_seconds), (b"K", _ANSWER_SECONDS)):
                    if await shim.obeys(order, seconds):
                        break
        if not (self.folder / "exit.json").exists():
            await asyncio.to_thread(kill_remains, self.folder)

    async def left(self, folder: Folder, spool: Path, only: str | None = None) -> Left:
        """Where it is."""
        place = self.folder.parent / folder if folder == "checkpoint" else self.folder / "data" / folder
        return await asyncio.to_thread(left_in, place, only)

    async def remove(self) -> None:
        """Kill the process if it still runs, and remove the attempt's folder."""
        await self.stop(0)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _news(self) -> AsyncGenerator[bool, None]:
        """Comes when the shim is connected, whenever it says that there is more in the log, and when it has ended.

        A shim that lives and does not answer is waited for.
        """
        alive = True
        while alive:
            with contextlib.closing(await self._connect()) as shim:
                yield True
                while await shim.read():
                    yield True
            # A connection may be refused and look like an end; the lock is free when the shim is gone.
            if alive := _is_locked(self.folder / "lock"):
                await asyncio.sleep(_FIRST_PAUSE)
        yield True

    async def _connect(self) -> _Shim:
        """A connection to the shim as soon as it listens; at its end already where there is no shim."""
        pause = _FIRST_PAUSE
        while True:
            # A shim that holds its lock and does not listen yet is one that is just starting.
            alive = _is_locked(self.folder / "lock")
            try:
                with self._socket_path() as path:
                    return _Shim(*await asyncio.open_unix_connection(path))
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                if not alive:
                    reader = asyncio.StreamReader()
                    reader.feed_eof()
                    return _Shim(reader, None)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def _socket_path(self) -> Iterator[str]:
        """A path of the shim's socket that is short enough for a socket."""
        path = self.folder / "shim.sock"
        if len(str(path)) <= _LONGEST_SOCKET_PATH:
            yield str(path)
            return
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}/shim.sock"
        finally:
            os.close(descriptor)


class _Shim:
    """The shim's end of the socket, as its client sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> bytes:
        """Wait for the shim to say something; nothing means that it is gone."""
        try:
            return await self.reader.read(4096)
        except OSError:
            return b""

    async def obeys(self, order: bytes, seconds: float) -> bool:
        """Give an order; whether the shim has ended so many seconds later."""
        if self.writer is None:
            return True
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                self.writer.write(order)
                while await self.read():
                    pass
                return True
        return False

    def close(self) -> None:
        """Let go of the shim."""
        if self.writer is not None:
            self.writer.close()


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Any]:
    try:
        file = await asyncio.to_thread(open, path, "rb")
    except FileNotFoundError:
        file = await asyncio.to_thread(open, os.devnull, "rb")
    try:
        yield file
    finally:
        file.close()


def end_in(folder: Path) -> dict[str, Any] | None:
    """What the shim of an attempt's folder wrote down at the end; None where there is no end, or it could not."""
    try:
        content: dict[str, Any] = json.loads((folder / "exit.json").read_text())
    except FileNotFoundError:
        return None
    return content


def _is_locked(path: Path) -> bool:
    """Whether a shim holds its lock."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _about_lost_lines(end: dict[str, Any]) -> str:
    if not end["lost_lines"]:
        return ""
    return f"{end['lost_lines']} lines could not be written to the log, or not whole: the disk was full"
