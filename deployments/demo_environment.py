"""The demo's Python environment: what the example requires, installed once and kept in the user's cache."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from prefect_jobs.errors import InfrastructureError

_LAST_LINES = 8


class EnvironmentNotMade(InfrastructureError):
    """The demo's Python environment cannot be had; the message has the installer's last lines and what to do."""


def cache_folder() -> Path:
    """Where the demo keeps what it can make again: ``$XDG_CACHE_HOME/prefect-jobs``, or ``~/.cache/prefect-jobs``.

    A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "prefect-jobs"


def environment_folder(requirements: Path, cache: Path) -> Path:
    """The folder of the environment for a requirements file and this Python; other contents, other folder."""
    python = f"{sys.implementation.cache_tag} {platform.python_version()} {platform.machine()} {sys.base_prefix}"
    key = hashlib.sha256(requirements.read_bytes() + python.encode()).hexdigest()[:16]
    return cache / f"environment-{key}"


async def make_environment(requirements: Path, cache: Path) -> Path:
    """Make the environment for a requirements file unless the cache has it; returns its folder.

    It is made beside its place and moved there when it is whole, so that an interrupted one is never used.

    Raises:
        EnvironmentNotMade: the installer failed.
    """
    folder = environment_folder(requirements, cache)
    if _is_whole(folder):
        return folder
    part = _part_of(folder)
    try:
        for command in _commands(part, requirements):
            await _call(command, cache)
        _put_in_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    # A link whose target is gone means that the Python it was made with was removed.
    return (folder / "bin/python").exists()


def _part_of(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))


def _put_in_place(part: Path, folder: Path) -> None:
    """Move the environment to its place, unless another demo was faster."""
    if not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            part.rename(folder)
    if not _is_whole(folder):
        raise EnvironmentNotMade(f"{part} cannot be moved to {folder}: remove the latter, then run the demo again")


def _commands(folder: Path, requirements: Path) -> list[list[str]]:
    python = str(folder / "bin/python")
    if uv := shutil.which("uv"):
        return [
            [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, "--requirement", str(requirements)],
        ]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--no-input", "--requirement", str(requirements)],
    ]


async def _call(command: list[str], folder: Path) -> None:
    """Run a command to its end; it does not outlive this call."""
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *command,
            cwd=folder,  # The folder that the demo is called in may have settings of its own for uv.
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        output, _ = await (await asyncio.shield(starting)).communicate()
    finally:
        # It may have begun its work, and started others, before this side knows of it.
        process = await starting
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        last = "\n".join(f"    {line}" for line in output.decode(errors="replace").splitlines()[-_LAST_LINES:])
        raise EnvironmentNotMade(
            f"its Python environment could not be made. '{' '.join(command)}' ended with exit code "
            f"{process.returncode}:\n\n{last}\n\nThe demo installs scikit-learn the first time: connect this machine "
            "to a package index (UV_DEFAULT_INDEX or PIP_INDEX_URL name one other than the default), then run it again."
        )
