"""Every test of the contract runs on every infrastructure: to add one is to add a param and its `Host`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from bench import Bench, bench_on
from hosts import Host, docker_host, process_host

from prefect_jobs.blocks.infrastructure import Infrastructure


@pytest.fixture(params=["process", "docker"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    if request.param == "process":
        return process_host(tmp_path)
    return docker_host(request.getfixturevalue("busybox"))


@pytest.fixture
def infrastructure(host: Host) -> Infrastructure:
    """The block that the contract is held against."""
    return host.block


@pytest.fixture
async def bench(host: Host, infrastructure: Infrastructure) -> AsyncIterator[Bench]:
    async with bench_on(infrastructure, host.image) as bench:
        yield bench


@pytest.fixture
def elsewhere(host: Host) -> Callable[..., str]:
    """A Python program for another process: it finds ``block`` and ``image`` as the test has them."""
    document = host.block.model_dump_json()
    kind = type(host.block)

    def program(body: str) -> str:
        return (
            f"import json\nfrom {kind.__module__} import {kind.__name__} as Block\n"
            f"block = Block.model_validate_json({document!r})\nimage = json.loads({json.dumps(host.image)!r})\n{body}"
        )

    return program
