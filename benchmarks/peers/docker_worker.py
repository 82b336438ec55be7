"""Prefect's stock docker worker: each run is a container that holds Prefect and a flow that does nothing."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from images import has_image, python_image

from benchmarks.cgroups import cgroup
from benchmarks.peers.peer import Ground, Kind, Serving
from benchmarks.peers.prefects import POOL, SLOW, PrefectPeer, PrefectServing
from benchmarks.processes import call

_FLOWS = """\
from time import sleep as wait

from prefect import flow


@flow
def noop() -> None:
    pass


@flow
def sleep() -> None:
    wait(900)
"""
_DOCKERFILE = """\
ARG BASE
FROM ${BASE}
ARG REQUIREMENTS
RUN pip install --quiet --no-cache-dir ${REQUIREMENTS}
COPY bench_flows.py /opt/flows/
ENV PYTHONPATH=/opt/flows PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/flows
"""
# Those of this environment: the newest ones do not suit Prefect.
_SAME = ("prefect", "fastapi", "starlette", "sqlalchemy", "pydantic")


class DockerWorker(PrefectPeer):
    name = "docker"
    title = "Prefect's docker worker"
    type = "docker"
    label = "io.prefect.flow-run-id"
    slow = True
    most = 16
    env = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    notes = (
        *SLOW,
        "its container holds Prefect: CPU and memory of the containers count as the supervisor's",
    )

    @property
    def image(self) -> str:
        """By a name that says what is in it."""
        return f"prefect-jobs-bench/prefect:{version('prefect')}"

    async def prepare(self, ground: Ground) -> None:
        if has_image(self.image):
            return
        requirements = " ".join(f"{name}=={version(name)}" for name in _SAME)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "bench_flows.py").write_text(_FLOWS)
            (folder / "Dockerfile").write_text(_DOCKERFILE)
            arguments = (f"BASE={python_image()}", f"REQUIREMENTS={requirements}")
            options = [word for argument in arguments for word in ("--build-arg", argument)]
            await call({}, "docker", "build", "--quiet", *options, "--tag", self.image, folder)

    @asynccontextmanager
    async def up(self, ground: Ground, at_once: int, *, counting: bool = False) -> AsyncIterator[Serving]:
        group = await cgroup("prefect-jobs-bench")
        try:
            async with super().up(ground, at_once, counting=counting) as up:
                up.cgroup = group
                yield up
        finally:
            group.remove()

    async def deploy(self, ground: Ground, up: PrefectServing) -> dict[Kind, str]:
        group = await cgroup("prefect-jobs-bench")
        variables = {
            "image": self.image,
            "image_pull_policy": "Never",
            "auto_remove": True,
            "container_create_kwargs": {"cgroup_parent": group.parent},
        }
        found: dict[Kind, str] = {}
        kinds: tuple[Kind, ...] = ("noop", "sleep")
        for kind in kinds:
            flow = await up.post("/flows/", {"name": kind})
            body = {"name": kind, "flow_id": flow["id"], "entrypoint": f"bench_flows.{kind}", "work_pool_name": POOL}
            found[kind] = (await up.post("/deployments/", {**body, "job_variables": variables}))["id"]
        return found

    def versions(self) -> dict[str, str]:
        return {**super().versions(), "prefect-docker": version("prefect-docker")}
