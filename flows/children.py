"""The runs that a pipeline's run starts: each once, found again by whoever takes the run up, and cancelled with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Pending

from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import StepError
from prefect_jobs.flows.branches import Branch
from prefect_jobs.flows.cancellation import cancelled_message
from prefect_jobs.flows.ends import Ends
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.job import Job

logger = logging.getLogger("prefect_jobs.pipelines")

# Runs that are on their way to the API at once.
_CREATIONS, _CANCELLATIONS = 8, 16
_PAGE = 200
GOING = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
"""The states of a run that has not ended."""


CHILDREN_SECONDS = 60.0
"""Beyond the longest grace period: what runs that are cancelled take to end."""


class Target(NamedTuple):
    """A job as a pipeline runs it."""

    job: Job
    deployment_id: UUID


class Children:
    """The runs of one run of a pipeline."""

    def __init__(
        self, client: PrefectClient, flow_run: FlowRun, pipeline: str, targets: Mapping[str, Target], ends: Ends
    ) -> None:
        self._client = client
        self._flow_run = flow_run
        self._pipeline = pipeline
        self._targets = targets
        self._ends = ends
        self._gate = asyncio.Semaphore(_CREATIONS)
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._creating: set[asyncio.Task[FlowRun]] = set()
        self._earlier: dict[str, list[FlowRun]] = {}
        self._since: datetime | None = None

    async def recall(self) -> int:
        """Find what was started before, by a supervisor that is gone or before the run was run again; how many."""
        if self._flow_run.run_count <= 1:
            return 0
        states = await insist(partial(self._client.read_flow_run_states, self._flow_run.id), "read a run's states")
        self._since = max((state.timestamp for state in states if state.is_final()), default=None)
        count = 0
        async for child in children_of(self._client, self._flow_run.id):
            count += 1
            key = (child.idempotency_key or "").rpartition("/")[0]
            # Its parameters hold a whole template.
            self._earlier.setdefault(key, []).append(child.model_copy(update={"parameters": {}}))
        return count

    async def run(self, branch: Branch, job: str, *, anew: bool = False) -> None:
        """Run a branch to its end, or take what is there of it.

        What succeeded is taken as it is, and what goes on is waited for. What did not succeed is run again where the
        pipeline's run was run again since; with ``anew``, so is what succeeded before that.
        """
        key = branch.key(self._flow_run.id)
        earlier = self._earlier.get(key, [])
        child = next((each for each in reversed(earlier) if self._counts(each, anew)), None)
        if child is None:
            creating = asyncio.create_task(self._create(branch, job, f"{key}/{len(earlier)}"))
            self._creating.add(creating)
            creating.add_done_callback(self._creating.discard)
            try:
                # Who is cancelled meanwhile must know what there is to cancel.
                child = await asyncio.shield(creating)
            except ObjectNotFound:
                branch.not_run("Refused", f"the deployment of job {job!r} was deleted; apply it again")
                return
            except PrefectHTTPStatusError as error:
                branch.not_run("Refused", f"Prefect refused the run: {_detail(error)}")
                return
        branch.begun_as(child)
        if child.state is None or not child.state.is_final():
            try:
                ended = await self._ends.of(child.id)
            except asyncio.CancelledError:
                self._ends.forget(child.id)
                raise
        else:
            ended = child
        branch.ended_as(ended)

    def _counts(self, child: FlowRun, anew: bool) -> bool:
        """Whether an earlier run of a branch is taken for the one that is wanted now."""
        state = child.state
        if state is None or not (state.is_final() or state.is_cancelling()):
            return True
        is_of_this_life = self._since is None or (child.created is not None and child.created > self._since)
        return is_of_this_life or (state.is_completed() and not anew)

    async def _create(self, branch: Branch, job: str, key: str) -> FlowRun:
        run_id, name, target = self._flow_run.id, f"{branch.step}-{branch.index}", self._targets[job]
        async with self._gate:
            task_run = await insist(
                partial(
                    self._client.create_task_run,
                    self._task(branch.step),
                    run_id,
                    key.partition("/")[2],
                    name=name,
                    state=Pending(),
                ),
                "create a task run",
            )
            return await insist(
                partial(
                    self._client.create_flow_run_from_deployment,
                    target.deployment_id,
                    parameters=branch.asked,
                    name=f"{self._flow_run.name}-{name}",
                    tags=[f"pipeline:{self._pipeline}", f"step:{branch.step}"],
                    idempotency_key=key,
                    parent_task_run_id=task_run.id,
                ),
                "start a run",
            )

    def _task(self, step: str) -> Task[Any, Any]:
        """What stands for the runs of a step among the task runs of the pipeline's run, and links them to it."""
        if step not in self._tasks:
            task: Any = Task(cast("Any", lambda: None), name=step)
            task.task_key = f"prefect_jobs.step.{step}"
            self._tasks[step] = task
        return self._tasks[step]

    async def cancel(self, message: str, seconds: float, but: Collection[str] = ()) -> int:
        """Cancel all that go on, those of some steps not, and wait for at most some seconds; how many are left then."""
        if self._creating:
            await asyncio.wait(self._creating, timeout=seconds)
        return await cancel_children(self._client, self._flow_run.id, message, seconds, self._ends, but)


async def children_of(client: PrefectClient, run_id: UUID, *, going: bool = False) -> AsyncIterator[FlowRun]:
    """The runs that a pipeline's run has started, in the order in which they were made; only those that go on."""
    chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    if going:
        chosen.state = FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING))
    offset = 0
    found: list[FlowRun] = []
    while True:
        page = await insist(
            partial(
                client.read_flow_runs, flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
            ),
            "read a pipeline's runs",
        )
        found += [child.model_copy(update={"parameters": {}}) for child in page]
        if len(page) < _PAGE:
            break
        offset += _PAGE
    for child in sorted(found, key=lambda child: str(child.created)):
        yield child


async def cancel_children(
    client: PrefectClient, run_id: UUID, message: str, seconds: float, ends: Ends, but: Collection[str] = ()
) -> int:
    """Cancel what a pipeline's run has started and what goes on; how many have not ended after some seconds."""
    gate = asyncio.Semaphore(_CANCELLATIONS)
    going = [child async for child in children_of(client, run_id, going=True) if step_of(child) not in but]

    async def cancel(child: FlowRun) -> None:
        async with gate:
            await cancel_child(client, child.id, message)

    await asyncio.gather(*map(cancel, going))
    if not going:
        return 0
    waiting = [asyncio.ensure_future(ends.of(child.id)) for child in going]
    _, left = await asyncio.wait(waiting, timeout=seconds)
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for child in going:
        ends.forget(child.id)
    return len(left)


def why_cancelled(flow_run: FlowRun) -> str:
    """Why the runs of a pipeline are cancelled, for the message of their states."""
    return f"its pipeline {flow_run.name} was cancelled"


async def cancel_child(client: PrefectClient, run_id: UUID, message: str) -> None:
    """Ask for a run to be cancelled; one whose flow has not begun ends now, for it never will."""
    with suppress(ObjectNotFound):
        asked: State[Any] = Cancelling(message=message)
        await insist(partial(client.set_flow_run_state, run_id, asked), "cancel a run")
        flow_run = await run_now(client, run_id)
        if flow_run.state is not None and flow_run.state.is_cancelling() and flow_run.run_count == 0:
            ended: State[Any] = Cancelled(message=cancelled_message(flow_run.state, "it had not begun"))
            await insist(partial(client.set_flow_run_state, run_id, ended, force=True), "end a run")


def pipeline_of(child: FlowRun) -> UUID | None:
    """The pipeline's run that started a run; None where somebody else did."""
    with suppress(ValueError):
        return UUID((child.idempotency_key or "").partition("/")[0])
    return None


def step_of(child: FlowRun) -> str:
    """The step that a run was started for."""
    return (child.idempotency_key or "").partition("/")[2].partition("/")[0]


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        return str(error.response.json().get("detail", error))
    except ValueError:
        return str(error)


async def read_targets(client: PrefectClient, names: list[str]) -> dict[str, Target]:
    """The jobs of a pipeline as they are deployed now.

    Raises:
        StepError: one of them is not there.
        VersionError: this release does not read one of them.
    """
    targets = {}
    for name in names:
        try:
            deployment = await insist(
                partial(client.read_deployment_by_name, f"{DeployedJob.kind}/{name}"), "read a job's deployment"
            )
        except ObjectNotFound:
            raise StepError(f"the pipeline runs the job {name!r}, which is not there; apply it and run again") from None
        deployed = DeployedJob.parse(deployment.parameters.get(DeployedJob.kind), deployment.version)
        targets[name] = Target(deployed.template, deployment.id)
    return targets
