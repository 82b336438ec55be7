"""What only Docker has: its own view of a container, an image with an entrypoint, and a proxy that fails."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from bench import Bench, bench_on
from hosts import docker

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.engine import Container


@pytest.fixture
async def bench(busybox: str) -> AsyncIterator[Bench]:
    async with bench_on(Docker(), busybox) as bench:
        yield bench


@pytest.fixture
def inspect() -> Callable[[Container], dict[str, Any]]:
    """A container as the engine sees it."""

    def look(container: Container) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", container.id))  # type: ignore[attr-defined]
        return found  # type: ignore[no-any-return]

    return look


@pytest.fixture(scope="session")
def entrypoint_image(busybox: str) -> Iterator[str]:
    """An image with an entrypoint, arguments, an environment, a working directory and a volume of its own."""
    name = f"prefect-jobs-test/entrypoint:{os.getpid()}"
    container = docker("create", busybox, "true").strip()
    changes = [
        'ENTRYPOINT ["echo", "entry"]', 'CMD ["default"]', "ENV FROM_IMAGE=kept", "WORKDIR /etc", "VOLUME /anonymous"
    ]  # fmt: skip
    docker("commit", *(word for change in changes for word in ("--change", change)), container, name)
    docker("rm", container)
    yield name
    docker("rmi", "--force", name)
