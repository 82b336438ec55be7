"""Environments into which the project is installed as by a user: without a lock, in the newest versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from session import once, root

PROJECT = Path(__file__).parents[2]

_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".cache", ".*_cache", "__pycache__", "*.egg-info", "build", "dist")
Run = Callable[..., subprocess.CompletedProcess[str]]


def uv(*words: str | Path) -> None:
    """Run uv, wherever the machine or the project's environment has it."""
    program = shutil.which("uv") or PROJECT / ".venv/uv/bin/uv"
    subprocess.run([program, *words, "--quiet"], check=True)


def built_wheel() -> Path:
    """The wheel, built from a copy, so that nothing is left in the checkout and nothing of an earlier build gets in."""
    with once("wheel") as first:
        if first:
            shutil.copytree(PROJECT, root() / "source", symlinks=True, ignore=_LEFT_OUT)
            uv("build", "--wheel", "--python", sys.executable, "--out-dir", root() / "wheel", root() / "source")
    [path] = (root() / "wheel").glob("*.whl")
    return path


def environment(name: str, requirement: str) -> Run:
    """Runs programs of an environment that has what is required; ``expect`` is the exit code."""
    folder = root() / name
    with once(name) as first:
        if first:
            uv("venv", "--python", sys.executable, folder)
            uv("pip", "install", "--python", folder / "bin/python", requirement)
            (folder / "empty").mkdir()

    def run(program: str, *words: str | Path, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [folder / "bin" / program, *words],
            cwd=folder / "empty",
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
