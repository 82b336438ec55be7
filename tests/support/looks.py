"""What many runs have become, asked of Prefect's API and the Docker engine."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import TaskRunSort
from reach import ended, lines

from prefect_jobs import JobRun


async def states_of(run_id: UUID) -> list[State]:
    """All states that a run was in, in their order."""
    async with get_client() as client:
        return sorted(await client.read_flow_run_states(run_id), key=lambda state: state.timestamp)


async def task_runs_of(run_id: UUID) -> Counter[tuple[str, str | None]]:
    """The names and states of a run's attempts, and of all other task runs that have not ended."""
    async with get_client() as client:
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        found = await client.read_task_runs(flow_run_filter=ours, sort=TaskRunSort.END_TIME_DESC, limit=200)
    return Counter(
        (each.name, each.state_name)
        for each in found
        if each.name.startswith("attempt ") or each.state is None or not each.state.is_final()
    )


async def all_ended(runs: Iterable[JobRun], seconds: float) -> None:
    """Wait until all runs have ended, each looked at in the end."""
    await asyncio.gather(*(ended(run, seconds) for run in runs))


async def lines_of(runs: Iterable[JobRun]) -> list[list[str]]:
    """What the containers of each run wrote."""
    return [await lines(run) for run in runs]


def remove_containers(job: str) -> None:
    """Remove what a failed test left of a job."""
    words = ["docker", "ps", "--all", "--quiet", "--filter", f"label=prefect-jobs/job={job}"]
    if left := subprocess.run(words, capture_output=True, text=True).stdout.split():
        subprocess.run(["docker", "rm", "--force", "--volumes", *left], capture_output=True)
