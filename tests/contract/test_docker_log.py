"""Docker's log where the engine, or the way to it, gives less than the contract asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiodocker
import pytest
from hosts import docker
from proxy import Proxy, proxy_at

from prefect_jobs.blocks import docker_logs
from prefect_jobs.blocks.docker_frames import Joining, Message
from prefect_jobs.blocks.docker_logs import lines
from prefect_jobs.blocks.docker_place import Place
from prefect_jobs.blocks.engine import LONGEST_LINE
from prefect_jobs.errors import InfrastructureError

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
    client: aiodocker.Docker, proxy: Proxy, start: Start, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine that rotates a log under its reader jumps in it: it gives messages twice, or falls silent.
    monkeypatch.setattr(docker_logs, "_SILENCE", 0.5)
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


@pytest.mark.parametrize("way", ["cut", "drop"])
async def test_a_log_goes_on_after_a_silence_in_which_its_connection_was_lost(
    client: aiodocker.Docker, proxy: Proxy, start: Start, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_logs, "_SILENCE", 0.3)
    container = await start("trap 'echo down' TERM; echo up; while :; do sleep 0.1; done")
    following = lines(client, container, None)
    async with asyncio.timeout(20), aclosing(following):  # type: ignore[type-var]
        assert (await anext(following)).text == "up"
        getattr(proxy, way)()
        next_line = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(docker, "kill", "--signal", "TERM", container)
        assert (await next_line).text == "down"


async def test_a_silence_costs_no_connection(
    client: aiodocker.Docker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_logs, "_SILENCE", 0.1)
    followed, ask = [], docker_logs._messages

    def messages(*of: Any, **options: str) -> Any:
        followed.append(options["follow"])
        return ask(*of, **options)

    monkeypatch.setattr(docker_logs, "_messages", messages)
    container = await start("echo up; sleep 1; echo down")
    assert [line.text async for line in lines(client, container, None)] == ["up", "down"]
    assert followed.count("0") >= 4
    assert followed.count("1") <= 2  # The end of the container may fall into the last look.


async def test_a_log_that_the_engine_cannot_read_to_its_end_is_given_as_far_as_it_goes(
    client: aiodocker.Docker, start: Start
) -> None:
    container = await start("echo one; echo two; echo three")
    await asyncio.to_thread(docker, "wait", container)
    path = Path((await asyncio.to_thread(docker, "inspect", "--format", "{{ .LogPath }}", container)).strip())
    path.write_bytes(path.read_bytes().replace(b'{"log":"two', b'!"log":"two'))
    following = lines(client, container, None)
    async with asyncio.timeout(20):
        assert (await anext(following)).text == "one"
        with pytest.raises(InfrastructureError, match="does not give the container's log to its end"):
            await anext(following)


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


def test_a_line_without_end_takes_no_memory_without_end() -> None:
    joining, longest = Joining(), 0
    part = Message("stdout", 1, b"x" * 16_384)
    given = 0
    for _ in range(60 * 64):
        given += sum(len(message.text) for message in joining.add([part]))
        longest = max(longest, len(joining._parts["stdout"][0]))
    assert longest <= LONGEST_LINE
    assert given + sum(len(message.text) for message in joining.rest()) == 60 * 2**20


def _messages(*numbers: int, **clock: int) -> list[Message]:
    """Lines as the engine gives them, each at the second of its number, or at another by its clock."""
    return [Message("stdout", clock.get(f"of_{n}", n) * 10**9, b"%d\n" % n) for n in numbers]


def _read(*connections: list[Message]) -> list[int]:
    """What a log gives whose connections gave these messages."""
    place, found = Place(), []
    for connection in connections:
        place.start_over()
        found += [int(message.text) for message in place.new(connection)]
    return found


@pytest.mark.parametrize("again", [(2, 3), (3,), (3, 4)], ids=str)
def test_lines_that_the_engine_gives_twice_under_a_rotation_come_once(again: tuple[int, ...]) -> None:
    jumping = _messages(1, 2, 3, *again)
    assert _read(jumping, _messages(1, 2, 3, 4)) == [1, 2, 3, 4]
    assert _read(jumping, _messages(3, 4)) == [1, 2, 3, 4]
    assert _read(jumping, _messages(2, 3), _messages(3, 4, 5)) == [1, 2, 3, 4, 5]


def test_lines_that_the_engine_left_out_under_a_rotation_shift_no_other() -> None:
    whole = _messages(*range(1, 10))
    assert _read(_messages(1, 2, 6, 7), whole, whole) == [1, 2, 6, 7, 8, 9]


def test_a_clock_that_was_set_back_costs_no_line() -> None:
    connection = _messages(1, 2, 3, 4, 5, of_3=1, of_4=1, of_5=2)
    assert _read(connection, connection, connection) == [1, 2, 3, 4, 5]


def test_parts_of_a_line_are_equal_and_all_count() -> None:
    place, part = Place(), Message("stdout", 1, b"x" * 16_384)
    assert len(place.new([part] * 10)) == 10
