"""An engine that is away is never an outcome: it is asked until it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from bench import Bench, bench_on, first_line, read
from hosts import docker
from prefect_docker.host import DockerHost
from proxy import Proxy, proxy_at

from prefect_jobs.blocks import docker_engine
from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.docker_body import create_body
from prefect_jobs.errors import EngineUnavailable
from prefect_jobs.outcome import Reason
from prefect_jobs.spec import Mount


@pytest.fixture
async def proxy(docker_engine: None, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with proxy_at(tmp_path / "docker.sock") as proxy:
        yield proxy


@pytest.fixture
async def bench(proxy: Proxy, busybox: str) -> AsyncIterator[Bench]:
    async with bench_on(Docker(host=DockerHost(base_url=proxy.url)), busybox) as bench:
        yield bench


@pytest.mark.parametrize("url", ["unix:///no/such/docker.sock", "tcp://127.0.0.1:9"])
async def test_an_engine_that_is_not_there_is_said_to_be_away(url: str) -> None:
    async with Docker(host=DockerHost(base_url=url)).engine() as engine:
        with pytest.raises(EngineUnavailable, match=r"did not answer: .*start it and try again"):
            await engine.pin("name:1", "IfNotPresent")
        with pytest.raises(EngineUnavailable, match="did not answer"):
            await engine.containers()


async def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(
        EngineUnavailable, match=r"carrier-pigeon:// names no Docker engine.*set the host of the docker block"
    ):
        async with Docker(host=DockerHost(base_url="carrier-pigeon://")).engine():
            pass


async def test_a_launch_waits_until_the_engine_is_back(bench: Bench, proxy: Proxy) -> None:
    await proxy.shut()
    launching = asyncio.create_task(bench.launch(bench.sh("echo hello")))
    async with asyncio.timeout(10):
        while not bench.told:
            await asyncio.sleep(0.02)
    assert bench.told[0].startswith("The Docker engine does not answer")
    await proxy.open()
    assert (await bench.end_of(await launching)).texts == ["hello"]


async def test_a_wait_goes_on_when_the_engine_is_back(bench: Bench, proxy: Proxy) -> None:
    container = await bench.launch(bench.sh("echo up; sleep 0.7; exit 5"))
    await first_line(container)
    waiting = asyncio.create_task(bench.end_of(container))
    await asyncio.sleep(0.1)
    await proxy.shut()
    await asyncio.sleep(1)
    assert not waiting.done()
    await proxy.open()
    ended = await waiting
    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.FAILED, 5)
    assert ended.texts == ["up"]


async def test_no_line_is_lost_or_doubled_when_connections_break(bench: Bench, proxy: Proxy) -> None:
    script = "for i in $(seq 20); do seq $((i * 100)) $((i * 100 + 99)); echo mid >&2; sleep 0.1; done"
    container = await bench.launch(bench.sh(script))

    async def cut() -> None:
        for _ in range(4):
            passed = proxy.passed
            while proxy.passed - passed < 10_000:
                await asyncio.sleep(0.01)
            proxy.cut()

    ended, _ = await asyncio.gather(bench.end_of(container), cut())
    assert [line.text for line in ended.lines if line.stream == "stdout"] == [str(n) for n in range(100, 2100)]
    assert [line.text for line in ended.lines if line.stream == "stderr"] == ["mid"] * 20
    assert await read(container) == ended.lines


async def test_stopping_and_removing_wait_for_the_engine_too(bench: Bench, proxy: Proxy) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh("echo up; sleep 60"), identity)
    await first_line(container)
    await proxy.shut()
    ending = asyncio.create_task(container.remove())
    await asyncio.sleep(0.3)
    await proxy.open()
    async with asyncio.timeout(20):
        await ending
    assert identity.run_id not in {found.run_id for found in await bench.engine.containers()}


async def test_a_container_whose_maker_died_before_starting_it_is_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "_CREATOR_SECONDS", 0.3)
    identity, spec = bench.identity(), bench.sh('touch "$JOB_OUTPUT_DIR/file" && echo started')
    client = bench.engine.client  # type: ignore[attr-defined]
    await client.containers.create(create_body(Docker(), spec, identity, {}), name=identity.container_name)
    assert (await bench.run(spec, identity)).texts == ["started"]


@pytest.mark.parametrize("gone", ["image", "folder"])
async def test_a_container_is_found_again_though_the_engine_would_not_make_it_any_more(
    busybox: str, gone: str, tmp_path: Path
) -> None:
    image, folder = f"prefect-jobs-test/gone:{uuid4().hex[:8]}", tmp_path / "mounted"
    folder.mkdir()
    docker("tag", busybox, image)
    async with bench_on(Docker(), image) as bench:
        mount = Mount(source=str(folder), target="/mounted")
        identity, spec = bench.identity(), bench.sh("echo up; sleep 60", pull_policy="Never", mounts=[mount])
        first = await bench.launch(spec, identity)
        await first_line(first)
        if gone == "folder":
            folder.rename(tmp_path / "elsewhere")
        else:
            docker("rmi", image)
        again = await bench.launch(spec, identity)
        assert again.id == first.id  # type: ignore[attr-defined]
        assert await again.age() > 0
    if gone == "folder":
        docker("rmi", image)


async def test_a_container_that_somebody_removed_is_lost(bench: Bench) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh("echo up; sleep 60"), identity)
    await first_line(container)
    waiting = asyncio.create_task(container.wait())
    await asyncio.sleep(0.2)
    await bench.engine.discard(identity)
    async with asyncio.timeout(10):
        outcome = await waiting
    assert outcome.reason is Reason.LOST
    assert "somebody removed the container" in outcome.message


@pytest.mark.parametrize("request_", ["create", "start"])
async def test_nothing_is_left_of_a_launch_that_is_cancelled_while_the_engine_is_at_work(
    bench: Bench, proxy: Proxy, request_: str
) -> None:
    await bench.run(bench.sh("true"))
    identity = bench.identity()
    proxy.hold(f"/{request_}", 1.5)
    launching = asyncio.create_task(bench.launch(bench.sh("sleep 60"), identity))
    await proxy.held.wait()
    launching.cancel()
    await asyncio.gather(launching, return_exceptions=True)
    await bench.engine.discard(identity)
    await bench.engine.release(identity.run_id)
    await asyncio.sleep(2)
    assert identity.run_id not in await bench.engine.runs()
