"""Prefect servers of a test's own, which it may stop and start, and a Postgres for those under load."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from needs import needs, wait_until
from ports import free_port
from prefect.settings import PREFECT_API_URL, temporary_settings
from reach import BIN
from session import once, root, start_for_session

_REGISTER = """
from prefect.blocks.system import Secret
from prefect_jobs import Docker, ObjectStore, Process
for block in (Secret, Docker, ObjectStore, Process):
    block.register_type_and_schema()
"""


def answers(url: str) -> bool:
    """Whether a Prefect API answers."""
    with suppress(OSError):
        return bool(urllib.request.urlopen(f"{url}/health", timeout=2).status == 200)
    return False


class Server:
    """A server on one port and one database, whatever becomes of its process."""

    def __init__(self, name: str, database: str | None = None, *, url: str | None = None) -> None:
        self._name = name
        self.url = url or f"http://127.0.0.1:{free_port()}/api"
        self.database = database or f"sqlite+aiosqlite:///{root()}/{name}.db"
        """Its database's URL."""
        self.environment = {
            "PREFECT_API_URL": self.url,
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def _command(self) -> tuple[str, ...]:
        return (str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(urlsplit(self.url).port))

    def start_for_session(self) -> None:
        """Start it until the end of the session, with the types of blocks that tests save.

        Of those who save the first block of a type at the same time, Prefect refuses all but one.
        """
        start_for_session(self._name, *self._command, **self.environment)
        wait_until(lambda: answers(self.url), 120, "a Prefect server")
        subprocess.run([sys.executable, "-c", _REGISTER], check=True, env={**os.environ, **self.environment})

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        with (root() / f"{self._name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env=os.environ | self.environment, start_new_session=True
            )
        await asyncio.to_thread(wait_until, lambda: answers(self.url), 120, "a Prefect server")

    async def kill(self) -> None:
        """Let it die at once, whatever it is doing."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Whatever this test asks Prefect, it asks this server."""
        with temporary_settings({PREFECT_API_URL: self.url}):
            yield


def postgres_database(name: str) -> str | None:
    """A database of its own on a Postgres that lives as long as the session; None where there is no Postgres."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        if os.environ.get("CI") == "true":
            needs("no Postgres: apt-get install postgresql")
        return None
    known = root() / "postgres-port"
    with once("postgres") as first:
        if first:
            known.write_text(str(_start_postgres(programs[-1])))
    port = known.read_text()
    words = ["-h", "127.0.0.1", "-p", port, "-U", "tests", name]
    subprocess.run([programs[-1] / "createdb", *words], check=True, cwd="/")
    return f"postgresql+asyncpg://tests@127.0.0.1:{port}/{name}"


def _start_postgres(found: Path) -> int:
    """Start the session's Postgres; its port."""
    folder, port = root() / "postgres", free_port()
    folder.mkdir()
    user: tuple[str, ...] = ()
    if os.geteuid() == 0:  # Postgres does not run as root.
        user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        root().chmod(0o711)
        subprocess.run(["chown", "postgres:", folder], check=True)
    make = ("--pgdata", str(folder / "data"), "--username=tests", "--auth=trust", "--no-sync")
    subprocess.run([*user, str(found / "initdb"), *make], check=True, stdout=subprocess.DEVNULL, cwd="/")
    options = ("-D", folder / "data", "-p", str(port), "-k", folder, "-c", "max_connections=300", "-c", "fsync=off")
    start_for_session("postgres", *user, found / "postgres", *options)
    ready = [str(found / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    wait_until(lambda: subprocess.run(ready).returncode == 0, 60, "Postgres")
    return port
