"""What containers use is looked at while they run, also where the engine does not answer for one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench import Bench, bench_on
from prefect_docker.host import DockerHost
from proxy import Proxy

from prefect_jobs.blocks import docker_usage
from prefect_jobs.blocks.docker import Docker


class Silent(Proxy):
    """Lets no question through about what the container of one run uses, and answers it never."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.container = "none"
        self.asked = 0

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        if count:
            return await super()._pipe(reader, writer, count)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 14):
                if f"/{self.container}/stats".encode() in data:
                    self.asked += 1
                    await reader.read()  # Until whoever asked gives up.
                    return None
                writer.write(data)
                await writer.drain()
        return None


@pytest.fixture
async def proxy(docker_engine: None, tmp_path: Path) -> AsyncIterator[Silent]:
    proxy = Silent(tmp_path / "docker.sock")
    await proxy.open()
    yield proxy
    await proxy.shut()


@pytest.fixture
async def bench(proxy: Silent, busybox: str) -> AsyncIterator[Bench]:
    async with bench_on(Docker(host=DockerHost(base_url=proxy.url)), busybox) as bench:
        yield bench


async def test_a_look_that_is_never_answered_holds_up_neither_its_container_nor_the_others(
    bench: Bench, proxy: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_usage, "_LONGEST", 1.0)
    silent = await bench.launch(bench.sh("sleep 5; exit 3"))
    proxy.container = silent.id  # type: ignore[attr-defined]
    waiting = asyncio.create_task(bench.end_of(silent))
    async with asyncio.timeout(10):
        while not proxy.asked:
            await asyncio.sleep(0.05)
    other = await bench.run(bench.sh("end=$(( $(date +%s) + 4 )); while [ $(date +%s) -lt $end ]; do :; done"))
    ended = await waiting
    assert ended.outcome.exit_code == 3
    assert ended.outcome.cpu_seconds is None
    assert other.outcome.cpu_seconds is not None
    assert other.outcome.cpu_seconds > 0
