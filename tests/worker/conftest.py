"""Workers of the type prefect-jobs, each a process of its own, on pools of a test's own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from looks import remove_containers
from needs import wait_until
from servers import Server, postgres_database
from session import once, root, start_for_session
from workers import StartWorker, workers_of


@pytest.fixture
def pool() -> Iterator[str]:
    """A name that no other test has, for a job, and for the work pool of a worker of its own."""
    name = f"pool-{uuid4().hex[:8]}"
    yield name
    remove_containers(name)


@pytest.fixture(scope="session")
def shared_server() -> Server:
    """A server that takes hundreds of runs at once, where Postgres is installed; else it is one on SQLite."""
    known = root() / "shared-server"
    with once("shared-server") as first:
        if first:
            server = Server("server-of-workers", postgres_database("workers"))
            server.start_for_session()
            known.write_text(server.url)
    return Server("server-of-workers", url=known.read_text())


@pytest.fixture
async def server(shared_server: Server) -> AsyncIterator[Server]:
    """The server that the test asks, and its workers."""
    with shared_server.used():
        yield shared_server


@pytest.fixture
def served(server: Server) -> str:
    """The name of a work pool that one worker serves for the whole session."""
    with once("served-by-us") as first:
        if first:
            prefect = Path(sys.executable).with_name("prefect")
            words = ("--pool", "served-by-us", "--type", "prefect-jobs", "--prefetch-seconds", "10")
            usual = {"PREFECT_WORKER_QUERY_SECONDS": "10", "PREFECT_API_URL": server.url}
            start_for_session("served-by-us", prefect, "worker", "start", *words, **usual)
            wait_until(lambda: "started!" in (root() / "served-by-us.log").read_text(), 90, "a worker")
    return "served-by-us"


@pytest.fixture
async def start_worker(server: Server, pool: str) -> AsyncIterator[StartWorker]:
    """Starts workers of the pool; the first one makes it."""
    async with workers_of(pool, PREFECT_API_URL=server.url) as start:
        yield start
