"""What peers on Prefect share: a server, a worker, deployments, flow runs."""

from __future__ import annotations

import asyncio
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.measure import Attributes
from benchmarks.peers.peer import Asked, Ground, Kind, Peer, Serving
from benchmarks.processes import serving, until
from benchmarks.servers import Cluster, PrefectServer, prefect_server

POOL = "bench"
SLOW = (
    "looks for runs every second here, every ten by default",
    "a run takes a Python process of its own: it is asked for fewer runs, and never for hundreds at once",
)
_CREATED_AT_ONCE = 8
_TO_END_SECONDS = 600.0
_ENDED = """
    select count(*) filter (where state_type::text in ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')) as over,
           max(end_time) as last
    from flow_run where id = any($1::uuid[])
"""
_NOT_WELL = "select id, state_name from flow_run where id = any($1::uuid[]) and state_type::text != 'COMPLETED'"


class PrefectServing(Serving):
    """A Prefect server with a worker; a run is a flow run."""

    def __init__(
        self, cluster: Cluster, prefect: PrefectServer, client: httpx.AsyncClient, worker: int, label: str
    ) -> None:
        super().__init__([worker], [prefect.process.process.pid])
        self.prefect: PrefectServer = prefect
        self.client = client
        self.deployments: dict[Kind, str] = {}
        self._cluster = cluster
        self._label = label
        self._places = asyncio.Semaphore(_CREATED_AT_ONCE)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the API answers."""
        answer = await self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def start(self, kind: Kind, count: int) -> list[Asked]:
        return await asyncio.gather(*(self._create(self.deployments[kind]) for _ in range(count)))

    async def _create(self, deployment: str) -> Asked:
        async with self._places:
            moment = time.time()
            run = await self.post(f"/deployments/{deployment}/create_flow_run", {})
            self.asked.add(run["id"])
            return Asked(run["id"], moment)

    async def ended(self, asked: list[Asked]) -> float:
        ids = [each.key for each in asked]
        deadline = time.monotonic() + _TO_END_SECONDS
        # Past the API, so that looking costs the server nothing and counts as no request.
        async with self._cluster.connection(self.prefect.database) as connection:
            while (row := await connection.fetchrow(_ENDED, ids))["over"] < len(ids):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{row['over']} of {len(ids)} runs ended within {_TO_END_SECONDS:g} s")
                await asyncio.sleep(0.2)
            if others := await connection.fetch(_NOT_WELL, ids):
                raise RuntimeError(f"these runs did not complete: {', '.join(f'{r[0]} {r[1]}' for r in others)}")
        return float(row["last"].timestamp())

    def key(self, attributes: Attributes) -> str | None:
        return attributes.get(self._label)


class PrefectPeer(Peer):
    """A worker of Prefect's, of some type."""

    type: str
    label: str
    """The label of its containers that holds the flow run's id."""
    env: Mapping[str, str] = {}

    @asynccontextmanager
    async def up(self, ground: Ground, at_once: int, *, counting: bool = False) -> AsyncIterator[Serving]:
        database = f"{self.name}-{uuid4().hex[:8]}"
        async with (
            prefect_server(ground.cluster, ground.folder, database, access_log=counting) as server,
            serving(
                f"the worker of type {self.type}", server.home / "worker.log", {**server.env, **self.env},
                *(sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", self.type),
                *("--limit", str(at_once)),
            ) as worker,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):  # fmt: skip

            async def is_online() -> bool:
                answer = await client.post(f"/work_pools/{POOL}/workers/filter", json={})
                return answer.status_code == 200 and any(each["status"] == "ONLINE" for each in answer.json())

            await until(is_online, 60, f"the worker of type {self.type}", worker, server.process)
            up = PrefectServing(ground.cluster, server, client, worker.process.pid, self.label)
            up.deployments = await self.deploy(ground, up)
            yield up

    @abstractmethod
    async def deploy(self, ground: Ground, up: PrefectServing) -> dict[Kind, str]:
        """Make the deployments; their ids."""

    def versions(self) -> dict[str, str]:
        return {"Prefect": version("prefect")}
