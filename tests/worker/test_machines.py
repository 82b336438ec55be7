"""Workers on several machines: a run is taken over by one that sees its container, and is never started twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cancelling import in_state
from hosts import docker
from looks import states_of
from prefect.client.orchestration import get_client
from prefect_docker.host import DockerHost
from proxy import ENGINE
from reach import containers_of, ended, first_line, lines, until
from workers import worker

from prefect_jobs import Docker, Job, JobRun, Process

UNTIL_TOLD = "echo up; until [ -e {}/go ]; do sleep 0.1; done; echo done"
# A dead supervisor of another machine is given up after so long, and looked for every few seconds.
GIVEN_UP = 15 + 10


@pytest.fixture
def name(prefect_api: str) -> str:
    """The name of a job and of its work pool, which no other test has."""
    return f"own-{uuid4().hex[:8]}"


def on(machine: str) -> dict[str, str]:
    """The environment of a worker on a machine."""
    return {"PREFECT_JOBS_MACHINE": machine}


async def test_a_process_waits_for_a_worker_of_its_machine(name: str, tmp_path: Path) -> None:
    command = ["sh", "-c", UNTIL_TOLD.format(tmp_path)]
    job = Job.model_validate({"name": name, "command": command, "grace_period": "1s"})
    await job.apply(work_pool=name)
    words = ("prefect-jobs", "worker", "--pool", name)
    async with worker(*words, env=on("a")) as first:
        run = await job.run()
        await first_line(run)
        await first.kill()
    async with worker(*words, env=on("b")) as elsewhere:
        await elsewhere.says(f"Run {run.id} waits for a worker on a/, where its container is")
        await asyncio.sleep(GIVEN_UP)
        await run.refresh()
        assert (run.state, run.flow_run.run_count) == ("Running", 1)
        async with worker(*words, env=on("a")):
            (tmp_path / "go").touch()
            await ended(run)
    assert (run.state, await lines(run)) == ("Completed", ["up", "done"])


@pytest.fixture
async def engine_for_all(busybox: str) -> AsyncIterator[str]:
    """The URL at which every machine would reach the engine."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(ENGINE)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 14):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    # An address that is not the machine's own loopback; nothing is sent to find it.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    server = await asyncio.start_server(connect, address, 0)
    yield f"tcp://{address}:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("place", ["kept", "freed"])
async def test_a_container_on_an_engine_that_all_reach_is_taken_over_from_another_machine_with_its_place_in_a_limit(
    place: str, name: str, engine_for_all: str, busybox: str
) -> None:
    await Docker(host=DockerHost(base_url=engine_for_all)).asave(name, overwrite=True)
    command = ["sh", "-c", UNTIL_TOLD.format("/tmp")]
    fields = {"infrastructure": f"docker/{name}", "image": busybox, "command": command, "concurrency": 1}
    job = Job.model_validate({"name": name, **fields})
    await job.apply(work_pool=name)
    words = ("prefect-jobs", "worker", "--pool", name)
    async with worker(*words, env=on("a")) as first:
        run = await job.run()
        await first_line(run)
        [container] = containers_of(run.id)
        before = await place_of(run)
        async with worker(*words, env=on("b")):
            await first.kill()
            if place == "freed":
                async with get_client() as client:
                    await client.release_concurrency_slots_with_lease(before)

            async def is_taken_over() -> bool:
                await run.refresh()
                return str(run.flow_run.infrastructure_pid).endswith(" on b/")

            await until(is_taken_over, GIVEN_UP + 15, "another owner")
            assert containers_of(run.id) == [container]
            assert (await place_of(run) == before) is (place == "kept")
            second = await job.run()
            await in_state(second, "AwaitingConcurrencySlot")
            docker("exec", container, "touch", "/tmp/go")
            await ended(run)
            # Its place is the next one's, at once and not when Prefect frees what nobody renews.
            await in_state(second, "Running")
            container = await first_container(second)
            docker("exec", container, "touch", "/tmp/go")
            await ended(second)
    assert (run.state, await lines(run)) == ("Completed", ["up", "done"])
    assert (second.state, await lines(second)) == ("Completed", ["up", "done"])


async def place_of(run: JobRun) -> UUID | None:
    """The lease of a run's place, as it was when the run was taken the last time."""
    taken = [state for state in await states_of(run.id) if state.is_pending()]
    return taken[-1].state_details.deployment_concurrency_lease_id


async def first_container(run: JobRun) -> str:
    """The container of a run, when it is at work."""
    await first_line(run)
    [container] = containers_of(run.id)
    return container


@pytest.mark.parametrize(
    ("block", "environment", "is_local"),
    [
        (Process(), "tcp://engine.example.org:2376", True),
        (Docker(), "", True),
        (Docker(), "unix:///run/docker.sock", True),
        (Docker(), "tcp://engine.example.org:2376", True),
        (Docker(host=DockerHost(base_url="unix:///run/docker.sock")), "tcp://engine.example.org:2376", True),
        (Docker(host=DockerHost(base_url="tcp://engine.example.org:2376")), "", False),
        (Docker(host=DockerHost(base_url="tcp://127.0.0.1:2376")), "", True),
    ],
)
def test_what_only_its_own_machine_sees(
    block: Process | Docker, environment: str, is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", environment)
    assert block.is_local is is_local
