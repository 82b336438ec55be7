"""An engine is shared with others: their volumes are theirs, their settings and events harm no run."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from uuid import uuid4

import pytest
from bench import bench_on, first_line, read
from hosts import docker

from prefect_jobs.blocks import docker_connection
from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.docker_connection import shared_connection
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.outcome import Reason
from prefect_jobs.spec import ContainerSpec, Mount


async def test_a_volume_that_somebody_else_made_is_mounted_only_where_the_block_allows_it(busybox: str) -> None:
    name = f"theirs-{uuid4().hex[:8]}"
    docker("volume", "create", name)
    spec = ContainerSpec(image=busybox, command=["true"], mounts=[Mount(source=name, target="/theirs")])
    try:
        async with bench_on(Docker(), busybox) as bench:
            with pytest.raises(
                InfrastructureError, match=rf"volume '{name}' was not made by prefect-jobs.*allow_volumes"
            ):
                await bench.launch(spec)
        async with bench_on(Docker(allow_volumes=[name]), busybox) as bench:
            assert (await bench.end_of(await bench.launch(spec))).outcome.reason is Reason.SUCCEEDED
    finally:
        docker("volume", "rm", "--force", name)


async def test_the_engine_neither_rotates_nor_drops_lines(busybox: str) -> None:
    async with bench_on(Docker(), busybox) as bench:
        container = await bench.launch(bench.sh("sleep 30"))
        found = json.loads(docker("inspect", container.id))[0]  # type: ignore[attr-defined]
        assert found["HostConfig"]["LogConfig"] == {
            "Type": "json-file",
            "Config": {"max-size": "1000t", "max-file": "1", "compress": "false", "mode": "blocking"},
        }


async def test_an_event_that_cannot_be_read_keeps_nobody_waiting(busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = []

    def loads(text: bytes) -> object:
        if not broken:
            broken.append(text)
            raise ValueError("an event that nobody expected")
        return json.loads(text)

    async with bench_on(Docker(), busybox) as bench, shared_connection(None):
        monkeypatch.setattr(docker_connection, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
        async with asyncio.timeout(30):
            ended = await bench.end_of(await bench.launch(bench.sh("sleep 0.5; exit 4")))
        assert ended.outcome.exit_code == 4
        assert broken


async def test_a_folder_of_the_image_keeps_its_owner(busybox: str) -> None:
    name = f"prefect-jobs-test/owned:{uuid4().hex[:8]}"
    made = docker("create", busybox, "sh", "-c", "mkdir -p /data && chown 1000 /data && chmod 700 /data").strip()
    docker("start", "--attach", made)
    docker("commit", "--change", "USER 1000", made, name)
    docker("rm", made)
    try:
        async with bench_on(Docker(), name) as bench:
            ended = await bench.end_of(await bench.launch(bench.sh("echo x > /data/mine && cat /data/mine")))
            assert ended.texts == ["x"]
            assert ended.outcome.succeeded
    finally:
        docker("rmi", "--force", name)


async def test_hundreds_of_streams_leave_room_to_ask(busybox: str) -> None:
    async with bench_on(Docker(), busybox) as bench:
        container = await bench.launch(bench.sh("echo up; trap 'exit 3' TERM; sleep 60 & wait"))
        readers = [asyncio.create_task(first_line(container)) for _ in range(150)]
        following = [asyncio.create_task(read(container)) for _ in range(150)]
        assert set(await asyncio.gather(*readers)) == {"up"}
        async with asyncio.timeout(20):
            await container.stop(10)
            assert (await container.wait()).exit_code == 3
            assert {len(lines) for lines in await asyncio.gather(*following)} == {1}


async def test_a_label_says_how_long_a_container_is_kept(busybox: str) -> None:
    async with bench_on(Docker(), busybox) as bench:
        container = await bench.launch(bench.spec("true", keep_seconds=60.0))
        labels = json.loads(docker("inspect", container.id))[0]["Config"]["Labels"]  # type: ignore[attr-defined]
        assert labels["prefect-jobs/keep-seconds"] == "60.0"
