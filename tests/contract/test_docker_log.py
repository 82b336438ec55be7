"""Docker's log where the engine, or the way to it, gives less than the contract asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiodocker
import pytest
from hosts import docker
from proxy import Proxy, proxy_at

from prefect_jobs.blocks import docker_logs
from prefect_jobs.blocks.docker_logs import lines

Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def proxy(docker_engine: None, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with proxy_at(tmp_path / "docker.sock") as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[aiodocker.Docker]:
    async with aiodocker.Docker(url=proxy.url) as client:
        yield client


@pytest.fixture
async def start(client: aiodocker.Docker, busybox: str) -> AsyncIterator[Start]:
    """Starts a container that nobody but the test made; its id."""
    async with AsyncExitStack() as stack:

        async def start(script: str, **host_config: Any) -> str:
            body = {"Image": busybox, "Cmd": ["sh", "-c", script], "HostConfig": host_config}
            container = await client.containers.create(body)
            stack.push_async_callback(container.delete, force=True, v=True)
            await container.start()
            return str(container.id)

        yield start


@pytest.mark.parametrize("more", [100, 3000], ids=["the last line is there", "the last line is lost"])
async def test_a_log_that_was_rotated_while_nobody_listened_is_read_to_its_end(
    client: aiodocker.Docker, proxy: Proxy, start: Start, more: int
) -> None:
    config = {"Type": "json-file", "Config": {"max-size": "20k", "max-file": "3"}}
    script = f"trap 'seq 10001 {10_000 + more}; exit' TERM; seq 3000; echo up; while :; do sleep 0.1; done"
    container = await start(script, LogConfig=config)
    up, texts = asyncio.Event(), []

    async def follow() -> None:
        async for line in lines(client, container, None):
            if up.is_set():
                texts.append(int(line.text))
            elif line.text == "up":
                up.set()

    following = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        await up.wait()
        await proxy.shut()
        await asyncio.to_thread(docker, "kill", "--signal", "TERM", container)
        await asyncio.to_thread(docker, "wait", container)
        await proxy.open()
        await following
    everything = list(range(10_001, 10_001 + more))
    if more == 100:
        assert texts == everything
    else:
        assert 100 < len(texts) < more
        assert texts == everything[-len(texts) :]


async def test_a_log_that_was_emptied_ends(client: aiodocker.Docker, proxy: Proxy, start: Start) -> None:
    container = await start("trap exit TERM; echo up; while :; do sleep 0.1; done")
    following = lines(client, container, None)
    async with asyncio.timeout(30):
        assert (await anext(following)).text == "up"
        await proxy.shut()
        path = Path((await asyncio.to_thread(docker, "inspect", "--format", "{{ .LogPath }}", container)).strip())
        await asyncio.to_thread(docker, "kill", "--signal", "TERM", container)
        await asyncio.to_thread(docker, "wait", container)
        path.write_bytes(b"")
        await proxy.open()
        assert [line async for line in following] == []


async def test_connections_that_break_now_and_then_do_not_slow_a_log_down(
    client: aiodocker.Docker, proxy: Proxy, start: Start
) -> None:
    container = await start("for i in $(seq 120); do echo $i; sleep 0.05; done")
    late = timedelta()
    count = 0
    async with asyncio.timeout(60):
        async for line in lines(client, container, None):
            count += 1
            late = max(late, datetime.now(UTC) - line.timestamp)
            if count % 15 == 0:
                proxy.cut()
    assert count == 120
    assert late < timedelta(seconds=3)


async def test_a_line_without_end_takes_no_memory_without_end() -> None:
    joining, longest = docker_logs._Joining(), 0
    part = docker_logs._Message("stdout", 1, b"x" * 16_384)
    given = 0
    for _ in range(60 * 64):
        given += sum(len(message.text) for message in joining.add(part))
        longest = max(longest, len(joining._parts["stdout"][0]))
    assert longest <= docker_logs.LONGEST_LINE
    assert given + sum(len(message.text) for message in joining.rest()) == 60 * 2**20
