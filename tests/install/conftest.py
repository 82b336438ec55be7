"""A wheel of the project, and environments that have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import Run, built_wheel, environment


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The project's wheel."""
    return built_wheel()


@pytest.fixture(scope="session")
def with_docker(wheel: Path) -> Run:
    """Runs a program of an environment that has the extra docker."""
    return environment("with-docker", f"prefect-jobs[docker] @ {wheel.as_uri()}")


@pytest.fixture(scope="session")
def without_docker(wheel: Path) -> Run:
    """Runs a program of an environment that has no extra."""
    return environment("without-docker", f"prefect-jobs @ {wheel.as_uri()}")
