"""What a test outside of a run sees of it: its lines, its end, its containers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from prefect_jobs import JobRun

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Answer:
    """What a command printed."""

    stdout: str
    stderr: str


Cli = Callable[..., Awaitable[Answer]]
Command = Callable[..., subprocess.CompletedProcess[str]]
Execute = Callable[[JobRun], Awaitable[object]]


async def until(ask: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Wait until something is so."""
    try:
        async with asyncio.timeout(seconds):
            while not await ask():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds} s") from None


async def ended(run: JobRun, seconds: float = 120) -> JobRun:
    """The run when it has ended."""
    async with asyncio.timeout(seconds):
        await run.wait()
    return run


async def runs_of(job: str) -> list[FlowRun]:
    """All runs of a job, also those that a schedule has made for later."""
    async with get_client() as client:
        return await client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[job])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=200,
        )


async def lines(run: JobRun) -> list[str]:
    """What a run's container wrote so far, and nothing of what Prefect says."""
    return [log.message for log in await run.logs() if log.name.startswith("container.")]


async def first_line(run: JobRun, seconds: float = 120) -> str:
    """The first line of a run's container, as soon as it is there."""

    async def is_there() -> bool:
        return bool(await lines(run))

    await until(is_there, seconds, "the container's first line")
    return (await lines(run))[0]


def containers_of(run_id: UUID | str) -> list[str]:
    """The containers that the Docker engine has of a run, running or not."""
    words = ["docker", "ps", "--all", "--quiet", "--filter", f"label=prefect-jobs/run-id={run_id}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
