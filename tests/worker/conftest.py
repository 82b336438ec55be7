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
def served(prefect_api: str) -> str:
    """The name of a work pool that one worker serves for the whole session."""
    with once("served-by-us") as first:
        if first:
            prefect = Path(sys.executable).with_name("prefect")
            words = ("--pool", "served-by-us", "--type", "prefect-jobs", "--prefetch-seconds", "10")
            usual = {"PREFECT_WORKER_QUERY_SECONDS": "10"}
            start_for_session("served-by-us", prefect, "worker", "start", *words, **usual)
            wait_until(lambda: "started!" in (root() / "served-by-us.log").read_text(), 90, "a worker")
    return "served-by-us"


@pytest.fixture
async def start_worker(prefect_api: str, pool: str) -> AsyncIterator[StartWorker]:
    """Starts workers of the pool; the first one makes it."""
    async with workers_of(pool) as start:
        yield start


@pytest.fixture(scope="session")
def loaded_server(prefect_api: str) -> Server:
    """A server that takes hundreds of runs at once, where Postgres is installed; else it is one on SQLite."""
    known = root() / "loaded-server"
    with once("loaded-server") as first:
        if first:
            server = Server("server-loaded", postgres_database("loaded"))
            server.start_for_session()
            known.write_text(server.url)
    server = Server("server-loaded")
    server.url = known.read_text()
    server.environment = {"PREFECT_API_URL": server.url}
    return server


@pytest.fixture
async def start_loaded(loaded_server: Server, pool: str) -> AsyncIterator[StartWorker]:
    """Starts workers of the pool at the loaded server, which the test asks meanwhile."""
    with loaded_server.used():
        async with workers_of(pool, **loaded_server.environment) as start:
            yield start
