"""What many runs have become, asked of Prefect's API and the Docker engine."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterName,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from reach import lines, until

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


async def attempts_become(run_id: UUID, expected: Mapping[tuple[str, str], int], seconds: float = 30) -> None:
    """Wait until a run's task runs are so: Prefect hears of their ends by events, after the run's own end perhaps."""

    async def are_so() -> bool:
        return await task_runs_of(run_id) == expected

    with suppress(AssertionError):
        await until(are_so, seconds, "the ends of the attempts")
    assert await task_runs_of(run_id) == expected


async def attempts_running(runs: list[JobRun]) -> int:
    """How many task runs of some runs' attempts the API calls Running, with a request for every hundred runs."""
    states = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
    found = 0
    async with get_client() as client:
        for start in range(0, len(runs), 100):
            ours = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs[start : start + 100]]))
            chosen = TaskRunFilter(state=states, name=TaskRunFilterName(like_="attempt "))
            found += len(
                await client.read_task_runs(
                    flow_run_filter=ours, task_run_filter=chosen, sort=TaskRunSort.END_TIME_DESC, limit=200
                )
            )
    return found


async def now(runs: Iterable[JobRun]) -> list[FlowRun]:
    """The runs as they are now, with a request for every hundred: who looks on must not be a load."""
    ids, found = [run.id for run in runs], list[FlowRun]()
    async with get_client() as client:
        for start in range(0, len(ids), 100):
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + 100]))
            sort = FlowRunSort.EXPECTED_START_TIME_ASC
            found += await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=100)
    return found


async def all_are(runs: Collection[JobRun], what: Callable[[FlowRun], bool], seconds: float, words: str) -> None:
    """Wait until something is true of every run."""

    async def is_so() -> bool:
        return sum(map(what, await now(runs))) == len(runs)

    await until(is_so, seconds, words)


async def all_ended(runs: Collection[JobRun], seconds: float) -> None:
    """Wait until all runs have ended, each looked at in the end."""
    await all_are(runs, lambda run: run.state is not None and run.state.is_final(), seconds, "the end of all runs")
    for run in runs:
        await run.refresh()


async def lines_of(runs: Iterable[JobRun]) -> list[list[str]]:
    """What the containers of each run wrote."""
    return [await lines(run) for run in runs]


def remove_containers(job: str) -> None:
    """Remove what a failed test left of a job."""
    words = ["docker", "ps", "--all", "--quiet", "--filter", f"label=prefect-jobs/job={job}"]
    if left := subprocess.run(words, capture_output=True, text=True).stdout.split():
        subprocess.run(["docker", "rm", "--force", "--volumes", *left], capture_output=True)
