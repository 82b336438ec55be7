"""One process behind its shim, as its supervisor sees it: through the shim's folder and socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect_jobs.blocks.engine import Container, LogLine
from prefect_jobs.blocks.moments import Moments
from prefect_jobs.errors import EngineUnavailable
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import Identity

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS.
_LONGEST_SOCKET_PATH = 100
SHIM_START_SECONDS = 30.0


class ProcessContainer(Container):
    """One process behind its shim."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity

    async def logs(self, after: datetime | None = None) -> AsyncIterator[LogLine]:
        """The lines of the shim's log; the shim says when there are more."""
        moments = Moments()
        async with self._connected() as shim_says, _opened(self.folder / "log") as log:
            alive, rest = True, b""
            while True:
                while data := await asyncio.to_thread(log.read, 1 << 20):
                    *records, rest = (rest + data).split(b"\n")
                    for record in records:
                        when, stream, text = record.split(b" ", 2)
                        moment = moments.of(int(when))
                        if after is None or moment > after:
                            yield LogLine(
                                moment, "stdout" if stream == b"o" else "stderr", text.decode(errors="replace")
                            )
                if not alive:
                    return
                # End of file: the shim has written everything; one more look at the log then shows it all.
                alive = bool(await shim_says.read(4096))

    async def wait(self) -> Outcome:
        """Wait for the shim to end, then read how the process did."""
        async with self._connected() as shim_says:
            while await shim_says.read(4096):
                pass
        try:
            end = json.loads((self.folder / "exit.json").read_text())
        except FileNotFoundError:
            return Outcome(
                reason=Reason.LOST,
                attempt=self.identity.attempt,
                message="the process and its shim are gone without a trace of how it ended: the machine restarted, or "
                "somebody killed both; start the run again",
            )
        code: int = end["code"]
        message = f"ended by signal {_signal_name(end['signal'])}" if end["signal"] else ""
        return Outcome(
            reason=Reason.SUCCEEDED if code == 0 else Reason.FAILED,
            attempt=self.identity.attempt,
            exit_code=code,
            message=message,
            started=datetime.fromtimestamp(end["started"] / 1e9, UTC),
            ended=datetime.fromtimestamp(end["ended"] / 1e9, UTC),
        )

    async def stop(self, grace_seconds: float) -> None:
        """Stop the whole process group."""
        async with self._connected() as shim_says:
            if (writer := shim_says.writer) is None:
                return
            for order, seconds in ((b"T", grace_seconds), (b"K", 10.0)):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    writer.write(order)
                    async with asyncio.timeout(seconds):
                        while await shim_says.read(4096):
                            pass
                    return

    async def remove(self) -> None:
        """Kill the process if it still runs, and remove the attempt's folder."""
        await self.stop(0)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Shim]:
        """A connection to the shim; reading from it ends when the shim does, at once where it is gone."""
        path = self.folder / "shim.sock"
        descriptor = None
        if len(str(path)) > _LONGEST_SOCKET_PATH:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            # Without the folder this names no file either, which is what is so.
            path = Path(f"/proc/self/fd/{descriptor}/shim.sock")
        writer: asyncio.StreamWriter | None = None
        reader = asyncio.StreamReader()
        try:
            async with asyncio.timeout(SHIM_START_SECONDS):
                while writer is None:
                    # A shim that holds its lock and does not listen yet is one that is just starting.
                    alive = _is_locked(self.folder / "lock")
                    try:
                        reader, writer = await asyncio.open_unix_connection(str(path))
                    except (FileNotFoundError, ConnectionRefusedError):
                        if not alive:
                            reader.feed_eof()
                            break
                        await asyncio.sleep(0.02)
        except TimeoutError:
            raise EngineUnavailable(f"the shim of {self.folder} lives and does not answer") from None
        finally:
            if descriptor is not None:
                os.close(descriptor)
        try:
            yield _Shim(reader, writer)
        finally:
            if writer is not None:
                writer.close()


class _Shim:
    """The shim's end of the socket, as its client sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, size: int) -> bytes:
        """Wait for the shim to say something; nothing means that it is gone."""
        try:
            return await self.reader.read(size)
        except ConnectionError:
            return b""


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


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{number} ({signal.Signals(number).name})"
    return str(number)
