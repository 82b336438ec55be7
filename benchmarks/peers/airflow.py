"""Apache Airflow, newest: DockerOperator under the LocalExecutor, on Postgres, in a Python environment of its own."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from uuid import uuid4

import httpx
from environments import uv
from ports import free_port

from benchmarks.measure import Attributes
from benchmarks.peers.peer import COMMANDS, Asked, Ground, Kind, Peer, Serving
from benchmarks.processes import call, serving, until
from benchmarks.servers import Cluster

REQUIREMENTS = (
    "apache-airflow",
    "apache-airflow-providers-docker",
    "apache-airflow-providers-postgres",
    "asyncpg",
    "psycopg2-binary",
)
DATABASE = "airflow"
_TO_END_SECONDS = 900.0
_DAGS = """\
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG

for kind, command in {commands}.items():
    for count in {counts}:
        with DAG(f"{{kind}}_{{count}}", schedule=None, max_active_tasks=1000, max_active_runs=1000) as dag:
            for number in range(count):
                DockerOperator(
                    task_id=f"run_{{number}}",
                    image={image!r},
                    command=command,
                    container_name=f"{{{{{{{{ run_id }}}}}}}}-{{number}}",
                    mount_tmp_dir=False,
                    auto_remove="success",
                    do_xcom_push=False,
                )
        globals()[dag.dag_id] = dag
"""


class _AirflowServing(Serving):
    def __init__(self, cluster: Cluster, client: httpx.AsyncClient, supervisor: list[int], server: list[int]) -> None:
        super().__init__(supervisor, server)
        self._cluster = cluster
        self._client = client

    async def start(self, kind: Kind, count: int) -> list[Asked]:
        run_id = f"bench-{uuid4().hex[:8]}"
        asked = [Asked(f"{run_id}-{number}", time.time()) for number in range(count)]
        self.asked |= {each.key for each in asked}
        body = {"dag_run_id": run_id, "logical_date": None}
        (await self._client.post(f"/api/v2/dags/{kind}_{count}/dagRuns", json=body)).raise_for_status()
        return asked

    async def ended(self, asked: list[Asked]) -> float:
        run_id = asked[0].key.rpartition("-")[0]
        async with self._cluster.connection(DATABASE) as connection:

            async def is_over() -> bool:
                state = await connection.fetchval("select state from dag_run where run_id = $1", run_id)
                return state in ("success", "failed")

            await until(is_over, _TO_END_SECONDS, f"the end of {len(asked)} tasks")
            tasks = await connection.fetch(
                "select task_id, state, end_date from task_instance where run_id = $1", run_id
            )
        if others := [f"{task['task_id']} {task['state']}" for task in tasks if task["state"] != "success"]:
            raise RuntimeError(f"these tasks did not succeed: {', '.join(others)}")
        return float(max(task["end_date"].timestamp() for task in tasks))

    def key(self, attributes: Attributes) -> str | None:
        return attributes.get("name")


class Airflow(Peer):
    name = "airflow"
    title = "Airflow"
    most = 50
    notes = (
        "a run is a task of one DAG run; supervisor: scheduler, executor, tasks, DAG processor; server: API server",
        "a task takes a Python process of its own: it is not asked for hundreds of sleeping containers at once",
    )

    def __init__(self) -> None:
        self._version = "?"
        self._secrets = {
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        }

    async def prepare(self, ground: Ground) -> None:
        environment = ground.cache / "airflow"
        if not (environment / "installed").exists():
            uv("venv", "--clear", "--python", sys.executable, environment)
            uv("pip", "install", "--python", environment / "bin/python", *REQUIREMENTS)
            (environment / "installed").touch()
        dags = ground.folder / "airflow/dags"
        dags.mkdir(parents=True)
        dag_file = _DAGS.format(commands=json.dumps(COMMANDS), counts=list(ground.counts), image=ground.image)
        (dags / "bench.py").write_text(dag_file)
        await ground.cluster.create(DATABASE)
        env = self._env(ground, 0, 8)
        self._version = (await call(env, environment / "bin/airflow", "version")).split()[-1]
        await call(env, environment / "bin/airflow", "db", "migrate")

    def _env(self, ground: Ground, port: int, at_once: int) -> dict[str, str]:
        """Its defaults, but where they make it slower."""
        return {
            **self._secrets,
            "AIRFLOW_HOME": str(ground.folder / "airflow"),
            "PATH": f"{ground.cache / 'airflow/bin'}:/usr/local/bin:/usr/bin:/bin",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ground.cluster.url(DATABASE, "postgresql+psycopg2"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(at_once),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        }

    @asynccontextmanager
    async def up(self, ground: Ground, at_once: int, *, counting: bool = False) -> AsyncIterator[Serving]:
        home, program, port = ground.folder / "airflow", ground.cache / "airflow/bin/airflow", free_port()
        env = self._env(ground, port, at_once)
        words = {
            "api-server": ("--host", "127.0.0.1", "--port", str(port)),
            "scheduler": ("--skip-serve-logs",),
            "dag-processor": (),
        }
        async with AsyncExitStack() as stack:
            processes = {
                name: await stack.enter_async_context(
                    serving(f"Airflow's {name}", home / f"{name}.log", env, program, name, *options)
                )
                for name, options in words.items()
            }
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60))
            dags = {f"{kind}_{count}" for kind in COMMANDS for count in ground.counts}

            async def is_ready() -> bool:
                with suppress(httpx.TransportError, KeyError):
                    if (answer := await client.get("/auth/token")).status_code == 201:
                        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
                        known = (await client.get("/api/v2/dags")).json()["dags"]
                        return dags <= {each["dag_id"] for each in known if not each["is_paused"]}
                return False

            await until(is_ready, 180, "Airflow's start", *processes.values())
            pids = {name: each.process.pid for name, each in processes.items()}
            supervisor = [pids["scheduler"], pids["dag-processor"]]
            yield _AirflowServing(ground.cluster, client, supervisor, [pids["api-server"]])

    def versions(self) -> dict[str, str]:
        return {"Airflow": self._version}
