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
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_jobs.blocks import shim
from prefect_jobs.blocks.engine import LONGEST_LINE, Container, Engine, Found, Tell, kept_until, may_start
from prefect_jobs.blocks.files import NOTHING_STAGED, Staged
from prefect_jobs.blocks.process_container import ProcessContainer, end_in
from prefect_jobs.blocks.process_remains import kill_remains
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.spec import ContainerSpec, Identity, Places, PullPolicy

if TYPE_CHECKING:
    from prefect_jobs.blocks.process import Process

SHIM_START_SECONDS = 30.0


class RunFolders:
    """Every path of a run below the block's home. No other place makes one up."""

    def __init__(self, home: Path, run_id: UUID) -> None:
        self.run = home / "runs" / str(run_id)
        self.checkpoint = self.run / "checkpoint"
        self.mark = self.run / "run.json"

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
        self,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        tell: Tell,
        staged: Staged = NOTHING_STAGED,
    ) -> Container:
        """Start the process of an attempt behind its shim, or attach to the one that is there."""
        folders = RunFolders(self.block.folder, identity.run_id)
        folder = folders.attempt(identity.attempt)
        request = await asyncio.to_thread(self._prepare, spec, identity, secrets, folders, staged)
        await may_start()
        if not (folder / "exit.json").exists():
            await _start_shim(folder, request)
        return ProcessContainer(folder, identity)

    def _prepare(
        self,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        folders: RunFolders,
        staged: Staged,
    ) -> dict[str, Any]:
        """Make the folders of an attempt, where it has none yet, and the shim's request."""
        assert spec.command is not None
        folder = folders.attempt(identity.attempt)
        work = folder / "work"
        places = Places(
            input=str(folder / "data/input"), output=str(folder / "data/output"), checkpoint=str(folders.checkpoint)
        )
        volumes = self._volumes(spec)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of several who launch at once one fills the folder; nobody touches it once the process may run.
        with open(folder / "prepare.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "identity.json").exists():
                for path in (work, *map(Path, (places.input, places.output, places.checkpoint, *volumes.values()))):
                    path.mkdir(parents=True, exist_ok=True)
                self._copy_workspace(work)
                for name, source in staged.items():
                    _move_into(source, Path(getattr(places, name)))
                shim.write_whole(str(folders.mark), {"installation": identity.installation})
                mark = {"job": identity.job, "attempt": identity.attempt, "installation": identity.installation}
                mark |= {"supervisor": identity.supervisor, "keep_seconds": spec.keep_seconds}
                shim.write_whole(str(folder / "identity.json"), mark)
        env = {
            **self.block.base_environment(),
            **spec.env,
            **spec.secret_environment(secrets, str(folder / shim.SECRETS)),
            **volumes,
            **identity.environment,
            **places.environment,
        }
        argv = [*spec.command, *(spec.args or [])]
        files = spec.secret_contents(secrets)
        return {"argv": argv, "cwd": str(work), "env": env, "secrets": files, "longest_line": LONGEST_LINE}

    def _copy_workspace(self, work: Path) -> None:
        if self.block.workspace is None:
            return
        try:
            shutil.copytree(self.block.workspace, work, dirs_exist_ok=True, symlinks=True)
        except OSError as error:
            raise InfrastructureError(
                f"the workspace {str(self.block.workspace)!r} of {self.block.label} cannot be copied to "
                f"{str(work)!r}: {error}; mend the block's workspace"
            ) from error

    def _volumes(self, spec: ContainerSpec) -> dict[str, str]:
        """Named volumes are folders that persist; the process finds each under ``JOB_VOLUME_<NAME>``."""
        return {
            "JOB_VOLUME_" + "".join(c if c.isalnum() else "_" for c in mount.source).upper(): str(
                self.block.folder / "volumes" / mount.source
            )
            for mount in spec.mounts
            if not mount.is_host_folder
        }

    def container(self, identity: Identity) -> Container:
        """The attempt's process by its folder."""
        return ProcessContainer(RunFolders(self.block.folder, identity.run_id).attempt(identity.attempt), identity)

    async def containers(self) -> list[Found]:
        """Every attempt whose folder is there."""
        return await asyncio.to_thread(self._containers)

    def _containers(self) -> list[Found]:
        folders = sorted((self.block.folder / "runs").glob("*/attempt-*"))
        return [found for folder in folders if (found := _found(folder)) is not None]

    async def runs(self) -> dict[UUID, str]:
        """Every run whose folder is there and marked."""
        return await asyncio.to_thread(self._runs)

    def _runs(self) -> dict[UUID, str]:
        found = {}
        for mark in (self.block.folder / "runs").glob("*/run.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):  # Removed meanwhile, or none of ours.
                found[UUID(mark.parent.name)] = str(json.loads(mark.read_text())["installation"])
        return found

    async def release(self, run_id: UUID) -> None:
        """Remove the run's folder, checkpoint included, and kill what attempts left that nobody removed."""
        await asyncio.to_thread(self._release, RunFolders(self.block.folder, run_id).run)

    def _release(self, run: Path) -> None:
        attempts = list(run.glob("attempt-*"))
        for attempt in attempts:
            if not (attempt / "exit.json").exists():
                kill_remains(attempt)
        if not any(found.is_kept for attempt in attempts if (found := _found(attempt)) is not None):
            shutil.rmtree(run, ignore_errors=True)


def _move_into(source: Path, folder: Path) -> None:
    """Move all that is in a folder into another one."""
    try:
        for path in source.iterdir():
            shutil.move(path, folder / path.name)
    except OSError as error:
        raise InfrastructureError(
            f"the files of an attempt cannot be put into {str(folder)!r}: {error}; make room there"
        ) from error


def _found(folder: Path) -> Found | None:
    """What is in the folder of an attempt; None where it is being made or removed."""
    try:
        mark = json.loads((folder / "identity.json").read_text())
        end = end_in(folder)
    except (FileNotFoundError, ValueError):
        return None
    ended = None if end is None else datetime.fromtimestamp(end["ended"] / 1e9, UTC)
    return Found(
        run_id=UUID(folder.parent.name),
        attempt=mark["attempt"],
        job=mark["job"],
        running=end is None,
        installation=mark.get("installation", ""),
        kept_until=kept_until(mark.get("keep_seconds"), 0 if end is None else end["code"], ended),
    )


async def _start_shim(folder: Path, request: dict[str, Any]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", shim.__file__, str(folder),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True, env={},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SHIM_START_SECONDS):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(json.dumps(request).encode())
                await process.stdin.drain()
            process.stdin.close()
            answer = await process.stdout.readline()
    except TimeoutError:
        if not await asyncio.to_thread(_give_up, folder, process.pid):
            return  # Another shim has the attempt.
        raise InfrastructureError(
            f"the shim of {folder} did not start within {SHIM_START_SECONDS:g} s, and the attempt was given up: the "
            "machine is overloaded, or the disk does not answer; start the run again"
        ) from None
    except BaseException:
        await asyncio.to_thread(_give_up, folder, process.pid)
        raise
    await process.wait()
    # Where another shim has the attempt, or had it, the folder tells how it goes.
    if answer not in (b"ready\n", b"taken\n"):
        words = (await process.stderr.read()).decode(errors="replace").strip()
        raise InfrastructureError(f"the shim of {folder} could not start the process: {words}")


def _give_up(folder: Path, starter: int) -> bool:
    """Kill what should have become the shim, and see to it that none starts the attempt later.

    False where the attempt is another shim's, which somebody else started.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(starter, signal.SIGKILL)  # The group of the starter and of the shim that it forks.
    deadline = time.monotonic() + 5
    try:
        with open(folder / "lock", "a") as lock:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.02)
                    continue
                if (folder / "exit.json").exists():
                    return False
                kill_remains(folder)
                shim.write_whole(str(folder / "started.json"), {"given_up": True})
                return True
    except FileNotFoundError:  # The attempt was removed, and a shim without its folder ends.
        return True
    return False
