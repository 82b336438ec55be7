"""One Prefect server, one stock worker and one set of images for a whole test session, whatever its number of workers.

Each is started by the first test that needs it, under a lock that all pytest-xdist workers share, and stopped by the
controlling process at the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from images import Missing, busybox_image, has_image, python_image
from needs import needs, wait_until
from ports import free_port
from session import once, start_for_session

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State
    from servers import Server
    from workers import StartWorker

    from prefect_jobs.deployments.runs import JobRun

PROJECT = Path(__file__).parent.parent


# Of whoever starts the tests in the background, all that they start would heed no Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Set before Prefect is imported, and inherited by the workers of pytest-xdist.
if "PREFECT_JOBS_TEST_ROOT" not in os.environ:
    root = tempfile.mkdtemp(prefix="prefect-jobs-tests-")
    os.environ |= {
        "PREFECT_JOBS_TEST_ROOT": root,
        "PREFECT_JOBS_TEST_CONTROLLER": str(os.getpid()),
        "PREFECT_HOME": f"{root}/prefect",
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_TELEMETRY_ENABLED": "false",
        # Schedules are looked at every second, so that a test of them takes seconds.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.3",
    }
    for name in ("PREFECT_API_KEY", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
ROOT = Path(os.environ["PREFECT_JOBS_TEST_ROOT"])


def pytest_unconfigure(config: pytest.Config) -> None:
    if os.environ.get("PREFECT_JOBS_TEST_CONTROLLER") != str(os.getpid()):
        return
    # The latest first: a server before its database.
    files = sorted(ROOT.glob("*.pid"), key=lambda file: file.stat().st_mtime, reverse=True)
    for pid in [int(file.read_text()) for file in files]:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
                with suppress(ChildProcessError, TimeoutError):
                    wait_until(lambda pid=pid: os.waitpid(pid, os.WNOHANG)[0] != 0, 10, "the end of a process")
    shutil.rmtree(ROOT, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api() -> str:
    """The URL of the session's Prefect server, on Postgres where that is installed: many write to it at once."""
    from servers import Server, postgres_database

    url = os.environ["PREFECT_API_URL"]
    with once("server") as first:
        if first:
            server = Server("server", postgres_database("session"), url=url)
            server.start_for_session()
            (ROOT / "server-database").write_text(server.database)
    return url


@pytest.fixture
async def api(prefect_api: str) -> AsyncIterator[PrefectClient]:
    """A client of the session's Prefect server."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        yield client


@pytest.fixture(scope="session")
def stock_worker(prefect_api: str) -> str:
    """The name of the work pool that a stock process worker serves, or the worker that the environment asks for.

    It is not the one that jobs are applied to by default, so that the worker takes no run that a test executes itself.
    """
    kind = os.environ.get("PREFECT_JOBS_TEST_WORKER", "process")
    with once("worker") as first:
        if first:
            prefect = str(Path(sys.executable).with_name("prefect"))
            # Made before a job is applied to it, which would make it of this project's own type.
            subprocess.run([prefect, "work-pool", "create", "served", "--type", kind], check=True, cwd=ROOT)
            start_for_session("worker", prefect, "worker", "start", "--pool", "served")
    return "served"


@pytest.fixture(scope="session")
def shared_server() -> Server:
    """A server that takes hundreds of runs at once, where Postgres is installed; else it is one on SQLite."""
    from servers import Server, postgres_database

    known = ROOT / "shared-server"
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
            wait_until(lambda: "started!" in (ROOT / "served-by-us.log").read_text(), 90, "a worker")
    return "served-by-us"


@pytest.fixture
async def start_worker(server: Server, pool: str) -> AsyncIterator[StartWorker]:
    """Starts workers of the test's ``pool``; the first one makes it."""
    from workers import workers_of

    async with workers_of(pool, PREFECT_API_URL=server.url) as start:
        yield start


Execute = Callable[["JobRun"], Awaitable["State[Any]"]]


@pytest.fixture
def execute(prefect_api: str) -> Iterator[Execute]:
    """Runs a job run in this process, as a worker would, but without waiting for one."""
    if os.environ.get("PREFECT_JOBS_TEST_WORKER") == "prefect-jobs":
        from ours import Ours

        ours = Ours()
        yield ours.execute
        ours.close()
        return

    async def run(job_run: JobRun) -> State[Any]:
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow
        from prefect.flows import load_flow_from_flow_run
        from prefect.logging.handlers import APILogHandler

        async with get_client() as client:
            flow_run = await client.read_flow_run(job_run.id)
            flow = await load_flow_from_flow_run(flow_run, use_placeholder_flow=False)
        state = await run_flow(flow, flow_run=flow_run, return_type="state")  # type: ignore[misc]
        await APILogHandler.aflush()
        await job_run.refresh()
        return state  # type: ignore[return-value]

    yield run


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine is there."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        needs("no Docker engine: apt-get install docker.io, then start dockerd")


def _image(make: Callable[[], str]) -> str:
    with once(make.__name__):
        try:
            return make()
        except Missing as error:
            needs(str(error))


@pytest.fixture(scope="session")
def busybox(docker_engine: None) -> str:
    """An image of 2 MB: a shell and its tools, no Python."""
    return _image(busybox_image)


@pytest.fixture(scope="session")
def python_base(docker_engine: None) -> str:
    """A Debian image with Python, pip and this machine's certificates: what python:3-slim is elsewhere."""
    return _image(python_image)


@pytest.fixture(scope="session")
def iris_image(python_base: str) -> str:
    """The image of examples/iris by the name that its job gives it, built when a file that goes into it has changed."""
    folder = PROJECT / "examples/iris"
    parts = [
        path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in ("", ".py", ".txt") and path.is_file()
    ]
    built = f"prefect-jobs-test/iris:{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"
    with once("iris-image") as first:
        if first:
            if not has_image(built):
                subprocess.run(
                    ["docker", "build", "--quiet", "--build-arg", f"BASE={python_base}", "-t", built, str(folder)],
                    check=True,
                )
            subprocess.run(["docker", "tag", built, "iris:1"], check=True)
    return "iris:1"
