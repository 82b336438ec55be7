"""Room on this machine for files on their way between a store and a container, and for what a store refuses."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from prefect.settings import get_current_settings

from prefect_jobs.errors import InfrastructureError

SPOOL = "PREFECT_JOBS_SPOOL"
RESCUED_DAYS = 7
"""For how long what a store refused is kept here."""
_RESCUED = "rescued"
_LOCK = ".lock"
_LOOKED_AT: set[Path] = set()


@asynccontextmanager
async def spool() -> AsyncIterator[Path]:
    """A folder of one's own, gone at the end; what processes that died have left goes with the first.

    Raises:
        InfrastructureError: it cannot be made.
    """
    home = _home()
    folder = home / uuid4().hex
    lock = await asyncio.to_thread(_make, home, folder)
    try:
        yield folder
    finally:
        await asyncio.to_thread(_remove, folder, lock)


async def rescue(name: str, files: Mapping[str, Path]) -> Path:
    """Keep files that a store has refused for some days, in a folder of this name; without a copy where that goes.

    Raises:
        OSError: this machine has no room for them.
    """
    return await asyncio.to_thread(_rescue, _home() / _RESCUED, name, files)


def _rescue(home: Path, name: str, files: Mapping[str, Path]) -> Path:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in home.iterdir():
        if time.time() - old.stat().st_mtime > RESCUED_DAYS * 86400:
            shutil.rmtree(old, ignore_errors=True)
    folder = home / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for below, path in files.items():
        target = folder / below
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
    return folder


def _home() -> Path:
    return Path(os.environ.get(SPOOL) or get_current_settings().home / "jobs" / "spool")


def _make(home: Path, folder: Path) -> IO[str]:
    try:
        if home not in _LOOKED_AT:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in home.iterdir():
                _remove_if_left(left)
            _LOOKED_AT.add(home)
        folder.mkdir(mode=0o700)
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock
    except OSError as error:
        raise InfrastructureError(
            f"a folder for files on their way cannot be made in {str(home)!r}: {error.strerror}; mend that, or set "
            f"{SPOOL} to another folder"
        ) from error


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that no process holds; one that is just being made has no lock yet, and stays."""
    with contextlib.suppress(OSError), (folder / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, lock: IO[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()
