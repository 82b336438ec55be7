"""The worker's image, built and run as docs/workers.md says: its jobs outlive it, and its successor takes them over."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from environments import PROJECT, built_wheel
from hosts import docker
from ports import free_port
from reach import containers_of, ended, first_line, lines, until

from prefect_jobs import Job

IMAGE = "prefect-jobs-test/worker:1"
SOCKET = Path("/var/run/docker.sock")


@pytest.fixture(scope="module")
def image(python_base: str) -> str:
    """The image, of the wheel of this checkout."""
    wheel, file = built_wheel(), PROJECT / "examples/worker/Dockerfile"
    docker(
        "build", "--quiet", "--tag", IMAGE, "--file", str(file), "--build-arg", f"BASE={python_base}", str(wheel.parent)
    )
    return IMAGE


class Container:
    """A worker in a container."""

    def __init__(self, image: str, pool: str) -> None:
        port = free_port()
        self.id = docker(
            *("run", "--detach", "--network", "host", "--health-interval", "1s"),
            *("--volume", f"{SOCKET}:/var/run/docker.sock", "--group-add", str(SOCKET.stat().st_gid)),
            *("--env", f"PREFECT_API_URL={os.environ['PREFECT_API_URL']}"),
            *("--env", f"PREFECT_WORKER_WEBSERVER_PORT={port}"),
            *(image, "--pool", pool),
        ).strip()

    def asked(self, template: str) -> str:
        """What the engine says of it."""
        return docker("inspect", "--format", template, self.id).strip()

    async def is_healthy(self) -> bool:
        """Whether its HEALTHCHECK is content."""
        return self.asked("{{ .State.Health.Status }}") == "healthy"

    def said(self) -> str:
        """All that it wrote."""
        done = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True)
        return done.stdout + done.stderr


@pytest.fixture
def name(prefect_api: str) -> str:
    """The name of a job and of its work pool, which no other test has."""
    return f"own-{uuid4().hex[:8]}"


@pytest.fixture
def containers() -> Iterator[list[Container]]:
    """The test's workers, which are removed in the end."""
    made: list[Container] = []
    yield made
    for each in made:
        subprocess.run(["docker", "rm", "--force", each.id], capture_output=True)


async def test_a_worker_in_a_container_is_stopped_started_and_replaced_and_its_job_goes_on(
    image: str, busybox: str, name: str, containers: list[Container]
) -> None:
    job = Job.model_validate(
        {
            "name": name,
            "infrastructure": "docker",
            "image": busybox,
            "command": ["sh", "-c", "echo up; until [ -e /tmp/go ]; do sleep 0.1; done; echo done"],
        }
    )
    await job.apply(work_pool=name)
    containers.append(worker := Container(image, name))
    await until(worker.is_healthy, 60, "a healthy worker")
    assert docker("exec", worker.id, "id", "-u").strip() == "1000"
    assert docker("exec", worker.id, "cat", "/proc/1/comm").strip() == "tini"
    run = await job.run()
    await first_line(run)
    [container] = containers_of(run.id)

    async def takes_over() -> bool:
        await run.refresh()
        return run.flow_run.infrastructure_pid not in owners

    owners = {(await run.refresh()).flow_run.infrastructure_pid}
    for again in ("started again", "replaced"):
        await asyncio.to_thread(docker, "stop", "--time", "60", worker.id)
        assert worker.asked("{{ .State.ExitCode }}") == "0", worker.said()
        assert docker("inspect", "--format", "{{ .State.Running }}", container).strip() == "true"
        if again == "started again":
            docker("start", worker.id)
        else:
            containers.append(worker := Container(image, name))
        await until(takes_over, 60, f"a worker that was {again} and takes the run over")
        owners.add(run.flow_run.infrastructure_pid)

    docker("exec", container, "touch", "/tmp/go")
    await ended(run)
    assert (run.state, await lines(run)) == ("Completed", ["up", "done"])
    assert containers_of(run.id) == []
    assert len(run.attempts) == 1
