"""A wheel of the project, and environments that have it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from environments import PROJECT, Run, environment, uv
from session import once, root

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".cache", ".*_cache", "__pycache__", "*.egg-info", "build", "dist")


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel, built from a copy, so that nothing is left in the checkout and nothing of an earlier build gets in."""
    with once("wheel") as first:
        if first:
            shutil.copytree(PROJECT, root() / "source", symlinks=True, ignore=LEFT_OUT)
            uv("build", "--wheel", "--python", sys.executable, "--out-dir", root() / "wheel", root() / "source")
    [path] = (root() / "wheel").glob("*.whl")
    return path


@pytest.fixture(scope="session")
def with_docker(wheel: Path) -> Run:
    """Runs a program of an environment that has the extra docker."""
    return environment("with-docker", f"prefect-jobs[docker] @ {wheel.as_uri()}")


@pytest.fixture(scope="session")
def without_docker(wheel: Path) -> Run:
    """Runs a program of an environment that has no extra."""
    return environment("without-docker", f"prefect-jobs @ {wheel.as_uri()}")
