"""What a run did before this supervisor: attempts that ended, and whether their end was reported already."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.states import Crashed

from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.records import outcomes
from prefect_jobs.flows.states import run_state, says_cancelled
from prefect_jobs.outcome import Outcome, Reason


@dataclass(frozen=True, slots=True)
class History:
    """The attempts of a run that have ended, in their order."""

    attempts: list[Outcome]
    reported: int
    """How many of them belong to an end that the run has reported; a person who starts it again gets a new budget."""

    @property
    def unreported(self) -> list[Outcome]:
        """The attempts that count for the run as it goes on now."""
        return self.attempts[self.reported :]

    @property
    def ended(self) -> int:
        """The number of the last attempt that ended, or 0."""
        return self.attempts[-1].attempt if self.attempts else 0


def may_have_begun(flow_run: FlowRun) -> bool:
    """Whether a supervisor may have made attempts of a run before; one that was suspended is not counted anew."""
    policy = flow_run.empirical_policy
    return flow_run.run_count > 1 or bool(policy.resuming or policy.pause_keys)


async def read_history(client: PrefectClient, run_id: UUID) -> History:
    """What Prefect holds of a run's earlier attempts."""
    attempts = await insist(lambda: outcomes(client, run_id), "read a run's artifacts")
    if not attempts:
        return History([], 0)
    states = await insist(lambda: client.read_flow_run_states(run_id), "read a run's states")
    ends = {(state.type, state.name, state.message) for state in states}
    reported = 0
    for number, outcome in enumerate(attempts, 1):
        end = run_state(outcome)
        if outcome.reason is Reason.CANCELLED or (end.type, end.name, end.message) in ends:
            reported = number
    return History(attempts, reported)


async def is_cancelled(client: PrefectClient, run_id: UUID) -> bool:
    """Whether the run was cancelled while its process was on its way: Prefect lets such a flow begin all the same.

    A person who starts a cancelled run again schedules it first.
    """
    states = await insist(lambda: client.read_flow_run_states(run_id), "read a run's states")
    before = [state for state in sorted(states, key=lambda state: state.timestamp) if not state.is_running()]
    return bool(before) and says_cancelled(before[-1])


async def was_cancelled(client: PrefectClient, run_id: UUID) -> bool:
    """Whether a person has cancelled the run that is going on."""
    return says_cancelled((await run_now(client, run_id)).state)


async def close_orphans(client: PrefectClient, run_id: UUID, own: Collection[UUID] = ()) -> list[TaskRun]:
    """End the task runs that an earlier supervisor of this run left running, and return them as they were.

    ``own`` are the ids of those that this supervisor began.
    """
    running = TaskRunFilterState(
        type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED])
    )
    open_ones = await insist(
        partial(
            client.read_task_runs,
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
            task_run_filter=TaskRunFilter(state=running),
            sort=TaskRunSort.EXPECTED_START_TIME_ASC,
            limit=200,
        ),
        "read a run's task runs",
    )
    orphans = [each for each in open_ones if each.id not in own]
    for orphan in orphans:
        state: State[Any] = Crashed(message="its supervisor is gone; another one has taken up the run")
        await insist(partial(client.set_task_run_state, orphan.id, state, force=True), "end a task run")
    return orphans
