"""A Postgres cluster of the benchmark's own, and a Prefect server on it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from ports import free_port

from benchmarks.processes import call, serving, until
from prefect_jobs.deployments.demo_processes import Background

# As uvicorn writes them down, websockets too.
_REQUEST = re.compile(r'"([A-Z]+|WebSocket) (/api[^\s"?]*)')
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@dataclass(frozen=True)
class Cluster:
    """A Postgres cluster."""

    process: Background
    port: int
    password: str

    def url(self, database: str, scheme: str = "postgresql") -> str:
        """A database's URL, with the password."""
        return f"{scheme}://bench:{self.password}@127.0.0.1:{self.port}/{database}"

    async def create(self, database: str) -> None:
        """Make an empty database."""
        await self.query("postgres", f'create database "{database}"')

    @asynccontextmanager
    async def connection(self, database: str) -> AsyncIterator[Any]:
        """A connection to a database."""
        connection = await asyncpg.connect(self.url(database))
        try:
            yield connection
        finally:
            await connection.close()

    async def query(self, database: str, words: str, *values: Any) -> list[Any]:
        """Rows, by a connection of their own."""
        async with self.connection(database) as connection:
            return list(await connection.fetch(words, *values))


def postgres_program(name: str) -> Path:
    """A program of the newest Postgres server; Debian does not have them on the PATH."""
    if found := shutil.which(name):
        return Path(found)
    there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    if not there:
        raise RuntimeError(f"no {name}: apt-get install postgresql")
    return there[-1]


@asynccontextmanager
async def postgres() -> AsyncIterator[Cluster]:
    """A cluster in a temporary folder; Postgres refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="prefect-jobs-bench-postgres-"))
    try:
        password, port = secrets.token_hex(16), free_port()
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user, user)
        await call(
            {}, postgres_program("initdb"), "--pgdata", folder / "data", "--username=bench", "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C", user=user,
        )  # fmt: skip
        log = folder / "log"
        command = (postgres_program("postgres"), "-D", folder / "data", "-p", str(port), "-k", folder, "-c")
        async with serving("Postgres", log, {}, *command, "max_connections=400", user=user) as process:
            cluster = Cluster(process, port, password)

            async def answers() -> bool:
                with suppress(OSError, asyncpg.PostgresError):
                    return bool(await cluster.query("postgres", "select 1"))
                return False

            await until(answers, 60, "Postgres' start", process)
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect server, and how to reach it."""

    process: Background
    home: Path
    url: str
    database: str

    @property
    def env(self) -> dict[str, str]:
        """What a process that talks to it needs in its environment."""
        return {**_OWN, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.url}

    def logged(self) -> int:
        """How long its log is now."""
        return self.process.log.stat().st_size

    def requests(self, since: int, leave_out: str) -> dict[str, int]:
        """How many requests of each route its access log has, after a place in it; ids are left out."""
        with self.process.log.open("rb") as file:
            file.seek(since)
            found = _REQUEST.findall(file.read().decode(errors="replace"))
        routes = (f"{method} {_ID.sub('…', path)}" for method, path in found)
        return dict(Counter(route for route in routes if not route.endswith(leave_out)).most_common())


_OWN = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_TELEMETRY_ENABLED": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_PROFILE": "ephemeral",
}


@asynccontextmanager
async def prefect_server(
    cluster: Cluster, folder: Path, database: str, *, access_log: bool = False
) -> AsyncIterator[PrefectServer]:
    """A server with an empty database of that name."""
    await cluster.create(database)
    port = free_port()
    home = folder / database
    home.mkdir()
    url = f"http://127.0.0.1:{port}/api"
    env = {
        **_OWN,
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": cluster.url(database, "postgresql+asyncpg"),
        "PREFECT_SERVER_LOGGING_LEVEL": "INFO" if access_log else "WARNING",
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    async with serving("the Prefect server", home / "server.log", env, *command) as process:

        async def answers() -> bool:
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"{url}/health")).status_code == 200
            return False

        await until(answers, 120, "the Prefect server's start", process)
        yield PrefectServer(process, home, url, database)
