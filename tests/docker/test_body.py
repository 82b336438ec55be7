"""What the engine is asked for, as the engine itself shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, bench_on
from hosts import docker

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.docker_body import create_body
from prefect_jobs.blocks.engine import Container
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.quantities import Cpu, Memory
from prefect_jobs.spec import Mount, Security, Shape

Inspect = Callable[[Container], dict[str, Any]]


async def test_a_shape_is_a_limit(bench: Bench, inspect: Inspect) -> None:
    shape = Shape(cpu=Cpu("500m"), memory=Memory("64Mi"), shared_memory=Memory("32Mi"))
    container = await bench.launch(bench.sh("df -m /dev/shm | tail -1; sleep 0.2", shape=shape))
    host = inspect(container)["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert (host["Memory"], host["MemorySwap"]) == (64 * 2**20, 64 * 2**20)
    assert host["ShmSize"] == 32 * 2**20
    assert (await bench.end_of(container)).texts[0].split()[1] == "32"


async def test_what_a_shape_does_not_name_is_not_limited(bench: Bench, inspect: Inspect) -> None:
    host = inspect(await bench.launch(bench.spec("true")))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (0, 0)


async def test_a_container_carries_the_labels_by_which_it_is_found(bench: Bench, inspect: Inspect) -> None:
    identity = bench.identity(job="train", version="abc", attempt=2, installation="here", supervisor="host/1")
    labels = inspect(await bench.launch(bench.spec("true"), identity))["Config"]["Labels"]
    assert labels == {
        "prefect-jobs/job": "train",
        "prefect-jobs/version": "abc",
        "prefect-jobs/run-id": str(identity.run_id),
        "prefect-jobs/attempt": "2",
        "prefect-jobs/installation": "here",
        "prefect-jobs/supervisor": "host/1",
    }


async def test_a_plain_container_has_no_more_rights_than_it_needs(bench: Bench, inspect: Inspect) -> None:
    host = inspect(await bench.launch(bench.spec("true")))["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert not host["CapAdd"]
    assert not host["Devices"]
    assert host["NetworkMode"] in ("default", "bridge")
    assert host["PidMode"] == ""
    assert not host["Binds"]


async def test_rights_that_a_job_asks_for_are_given(bench: Bench, inspect: Inspect) -> None:
    security = Security(host_network=True, capabilities=["NET_ADMIN"], devices=["/dev/zero"], user="1000:1000")
    container = await bench.launch(bench.sh("id -u; id -g", security=security))
    found = inspect(container)
    assert [name.removeprefix("CAP_") for name in found["HostConfig"]["CapAdd"]] == ["NET_ADMIN"]
    assert found["HostConfig"]["Devices"][0]["PathOnHost"] == "/dev/zero"
    assert found["HostConfig"]["NetworkMode"] == "host"
    assert (await bench.end_of(container)).texts == ["1000", "1000"]


async def test_privileges_are_given_whole(bench: Bench, inspect: Inspect) -> None:
    # Not started: a machine that is itself a container may have no such rights to give.
    identity, spec = bench.identity(), bench.spec("true", security=Security(privileged=True))
    client = bench.engine.client  # type: ignore[attr-defined]
    made = await client.containers.create(create_body(Docker(), spec, identity, {}), name=identity.container_name)
    host = inspect(made)["HostConfig"]
    assert host["Privileged"] is True
    assert "no-new-privileges" not in (host["SecurityOpt"] or [])


async def test_whoever_an_image_runs_as_can_write_into_the_folders(bench: Bench) -> None:
    script = "; ".join(
        f'touch "${name}/f" && echo ok' for name in ("JOB_INPUT_DIR", "JOB_OUTPUT_DIR", "JOB_CHECKPOINT_DIR")
    )
    ended = await bench.run(bench.sh(script, security=Security(user="12345:12345")))
    assert ended.texts == ["ok", "ok", "ok"]


async def test_containers_join_the_network_of_the_block(busybox: str, inspect: Inspect) -> None:
    async with bench_on(Docker(network="none"), busybox) as bench:
        assert inspect(await bench.launch(bench.spec("true")))["HostConfig"]["NetworkMode"] == "none"


async def test_the_log_is_kept_by_the_driver_that_can_be_read_back(bench: Bench, inspect: Inspect) -> None:
    assert inspect(await bench.launch(bench.spec("true")))["HostConfig"]["LogConfig"]["Type"] == "json-file"


async def test_a_read_only_volume_cannot_be_written(bench: Bench) -> None:
    identity = bench.identity()
    mount = Mount(source=f"read-only-{identity.run_id}", target="/ro", read_only=True)
    ended = await bench.run(bench.sh("touch /ro/file", mounts=[mount]), identity)
    await bench.engine.discard(identity)
    docker("volume", "rm", mount.source)
    assert ended.outcome.exit_code == 1
    assert "Read-only file system" in ended.texts[0]


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"mounts": [Mount(source="/no/such/folder", target="/x")]}, "/no/such/folder"),
    ({"security": Security(devices=["/dev/no-such-device"])}, "/dev/no-such-device"),
    ({"security": Security(user="nobody-knows")}, "nobody-knows"),
    ({"shape": Shape(gpu=1)}, "device driver"),
    ({"shape": Shape(cpu=Cpu(10_000))}, "CPUs"),
    ({"shape": Shape(memory=Memory("1Mi"))}, "memory"),
]


@pytest.mark.parametrize(("fields", "words"), IMPOSSIBLE, ids=lambda part: str(part))
async def test_a_container_that_the_engine_refuses_is_an_error_in_its_words(
    bench: Bench, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InfrastructureError, match=f"refused the container of job 'bench'.*{words}"):
        await bench.launch(bench.spec("true", **fields))


async def test_a_network_that_is_not_there_is_named(busybox: str) -> None:
    async with bench_on(Docker(network="no-such-network"), busybox) as bench:
        with pytest.raises(InfrastructureError, match="no-such-network"):
            await bench.launch(bench.spec("true"))
