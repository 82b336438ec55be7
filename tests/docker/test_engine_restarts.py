"""The engine itself ends and starts again under a container whose log is followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from bench import Bench, bench_on, first_line
from engines import OwnEngine, own_engine
from prefect_docker.host import DockerHost

from prefect_jobs.blocks.docker import Docker

LINES = 100
COUNTING = f"i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 3"


@pytest.fixture
async def engine(busybox: str) -> AsyncIterator[OwnEngine]:
    async with own_engine() as engine:
        yield engine


async def _bench(stack: AsyncExitStack, engine: OwnEngine, image: str, *options: str) -> Bench:
    await engine.start(*options)
    await engine.load(image)
    block = Docker(host=DockerHost(base_url=engine.url), network="none")
    return await stack.enter_async_context(bench_on(block, image))


async def test_a_container_that_outlives_its_engine_loses_no_line(engine: OwnEngine, busybox: str) -> None:
    async with AsyncExitStack() as stack:
        bench = await _bench(stack, engine, busybox, "--live-restore")
        container = await bench.launch(bench.sh(COUNTING))
        ending = asyncio.create_task(bench.end_of(container))
        await first_line(container)
        await engine.kill()
        await engine.start("--live-restore")
        ended = await ending
    assert ended.texts == [str(number) for number in range(LINES)]
    assert ended.outcome.exit_code == 3


async def test_a_container_that_ends_with_its_engine_loses_no_line(engine: OwnEngine, busybox: str) -> None:
    async with AsyncExitStack() as stack:
        bench = await _bench(stack, engine, busybox)
        container = await bench.launch(bench.sh("trap 'seq 1000; exit 7' TERM; echo up; while :; do sleep 0.1; done"))
        ending = asyncio.create_task(bench.end_of(container))
        await first_line(container)
        await engine.stop()
        await engine.start()
        ended = await ending
    assert ended.texts == ["up", *(str(number) for number in range(1, 1001))]
    assert ended.outcome.exit_code == 7
