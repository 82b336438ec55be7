"""Workers of the type prefect-jobs, each a process of its own, on pools of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from looks import remove_containers
from servers import Server
from workers import StartWorker, workers_of


@pytest.fixture
def pool() -> Iterator[str]:
    """A name that no other test has, for a job, and for the work pool of a worker of its own."""
    name = f"pool-{uuid4().hex[:8]}"
    yield name
    remove_containers(name)


@pytest.fixture
async def start_worker(server: Server, pool: str) -> AsyncIterator[StartWorker]:
    """Starts workers of the pool; the first one makes it."""
    async with workers_of(pool, PREFECT_API_URL=server.url) as start:
        yield start
