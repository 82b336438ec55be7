"""Runs attempts as processes, each behind a shim that outlives its supervisor (see `prefect_jobs.blocks.shim`)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_jobs.blocks import shim
from prefect_jobs.blocks.engine import Container, Engine, Found, LogLine, Tell
from prefect_jobs.errors import EngineUnavailable, InfrastructureError
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import ContainerSpec, Identity, Places, PullPolicy

if TYPE_CHECKING:
    from prefect_jobs.blocks.process import Process

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS.
_LONGEST_SOCKET_PATH = 100
_SHIM_START_SECONDS = 30.0


class RunFolders:
    """Every path of a run below the block's home. No other place makes one up."""

    def __init__(self, home: Path, run_id: UUID) -> None:
        self.run = home / "runs" / str(run_id)
        self.checkpoint = self.run / "checkpoint"

    def attempt(self, number: int) -> Path:
        """The folder of an attempt."""
        return self.run / f"attempt-{number}"


class ProcessEngine(Engine):
    """The processes of this machine, found again by their folders."""

    def __init__(self, block: Process) -> None:
        self.block = block

    async def pin(self, image: str, pull_policy: PullPolicy) -> str | None:
        """Processes use no image."""
        return None

    async def launch(
        self, spec: ContainerSpec, identity: Identity, secrets: Mapping[str, str], tell: Tell
    ) -> Container:
        """Start the process of an attempt behind its shim, or attach to the one that is there."""
        folders = RunFolders(self.block.folder, identity.run_id)
        folder = folders.attempt(identity.attempt)
        request = await asyncio.to_thread(self._prepare, spec, identity, secrets, folders)
        if not (folder / "exit.json").exists():
            await _start_shim(folder, request)
        return ProcessContainer(folder, identity)

    def _prepare(
        self, spec: ContainerSpec, identity: Identity, secrets: Mapping[str, str], folders: RunFolders
    ) -> dict[str, Any]:
        """Make the folders of an attempt and the shim's request; an attempt that has started is left alone."""
        assert spec.command is not None
        folder = folders.attempt(identity.attempt)
        work = folder / "work"
        places = Places(
            input=str(folder / "data/input"), output=str(folder / "data/output"), checkpoint=str(folders.checkpoint)
        )
        volumes = self._volumes(spec)
        if not (folder / "started.json").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (work, *map(Path, (places.input, places.output, places.checkpoint, *volumes.values()))):
                path.mkdir(parents=True, exist_ok=True)
            if self.block.workspace is not None:
                try:
                    shutil.copytree(self.block.workspace, work, dirs_exist_ok=True, symlinks=True)
                except OSError as error:
                    raise InfrastructureError(
                        f"the workspace {str(self.block.workspace)!r} of {self.block.label} cannot be copied to "
                        f"{str(work)!r}: {error}; mend the block's workspace"
                    ) from error
            shim.write_whole(str(folder / "identity.json"), {"job": identity.job, "attempt": identity.attempt})
        env = {
            **self.block.base_environment(),
            **spec.env,
            **secrets,
            **volumes,
            **identity.environment,
            **places.environment,
        }
        return {"argv": [*spec.command, *(spec.args or [])], "cwd": str(work), "env": env}

    def _volumes(self, spec: ContainerSpec) -> dict[str, str]:
        """Named volumes are folders that persist; the process finds each under ``JOB_VOLUME_<NAME>``."""
        return {
            "JOB_VOLUME_" + "".join(c if c.isalnum() else "_" for c in mount.source).upper(): str(
                self.block.folder / "volumes" / mount.source
            )
            for mount in spec.mounts
            if not mount.is_host_folder
        }

    async def discard(self, identity: Identity) -> None:
        """Kill and remove the attempt's process."""
        container = ProcessContainer(RunFolders(self.block.folder, identity.run_id).attempt(identity.attempt), identity)
        await container.stop(0)
        await container.remove()

    async def containers(self) -> list[Found]:
        """Every attempt whose folder is there."""
        return await asyncio.to_thread(self._containers)

    def _containers(self) -> list[Found]:
        found = []
        for identity in sorted((self.block.folder / "runs").glob("*/attempt-*/identity.json")):
            content = json.loads(identity.read_text())
            running = not (identity.parent / "exit.json").exists()
            found.append(Found(UUID(identity.parts[-3]), content["attempt"], content["job"], running))
        return found

    async def release(self, run_id: UUID) -> None:
        """Remove the run's folder, checkpoint included."""
        await asyncio.to_thread(shutil.rmtree, RunFolders(self.block.folder, run_id).run, ignore_errors=True)


async def _start_shim(folder: Path, request: dict[str, Any]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", shim.__file__, str(folder),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True, env={},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(json.dumps(request).encode())
        await process.stdin.drain()
    process.stdin.close()
    try:
        async with asyncio.timeout(_SHIM_START_SECONDS):
            answer = await process.stdout.readline()
    except TimeoutError:
        raise EngineUnavailable(f"the shim of {folder} did not start within {_SHIM_START_SECONDS:.0f} s") from None
    await process.wait()
    # Where another shim has the attempt, or had it, the folder tells how it goes.
    if answer not in (b"ready\n", b"taken\n"):
        words = (await process.stderr.read()).decode(errors="replace").strip()
        raise InfrastructureError(f"the shim of {folder} could not start the process: {words}")


class ProcessContainer(Container):
    """One process behind its shim."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity

    async def logs(self, after: datetime | None = None) -> AsyncIterator[LogLine]:
        """The lines of the shim's log; the shim says when there are more."""
        nanoseconds = -1 if after is None else round(after.timestamp() * 1e6) * 1000 + 999
        async with self._connected() as shim_says, _opened(self.folder / "log") as log:
            alive, rest = True, b""
            while True:
                while data := await asyncio.to_thread(log.read, 1 << 20):
                    *records, rest = (rest + data).split(b"\n")
                    for record in records:
                        when, stream, text = record.split(b" ", 2)
                        if int(when) > nanoseconds:
                            yield LogLine(
                                datetime.fromtimestamp(int(when) / 1e9, UTC),
                                "stdout" if stream == b"o" else "stderr",
                                text.decode(errors="replace"),
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
        """Remove the attempt's folder."""
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Shim]:
        """A connection to the shim; reading from it ends when the shim does, at once where it is gone."""
        path = self.folder / "shim.sock"
        descriptor = None
        if len(str(path)) > _LONGEST_SOCKET_PATH:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            path = Path(f"/proc/self/fd/{descriptor}/shim.sock")
        writer: asyncio.StreamWriter | None = None
        reader = asyncio.StreamReader()
        try:
            async with asyncio.timeout(_SHIM_START_SECONDS):
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
