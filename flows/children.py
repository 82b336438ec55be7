"""The runs that a pipeline's run starts: each once, found again by whoever takes the run up, and cancelled with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Pending, Retrying

from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import StepError
from prefect_jobs.flows.branches import CHILD_KEY, Branch
from prefect_jobs.flows.cancellation import cancelled_message
from prefect_jobs.flows.ends import Ends
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.states import says_cancelled
from prefect_jobs.job import Job

logger = logging.getLogger("prefect_jobs.pipelines")

# Runs that are on their way to the API at once.
_CREATIONS, _CANCELLATIONS = 8, 16
_PAGE = 200
_PIPELINE_TAG, _STEP_TAG = "pipeline:", "step:"
_RETRYING = Retrying().name
# Who runs one again whose process died does so without an end before.
_BY_A_PERSON = AwaitingRetry().name
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
        self._going: set[UUID] = set()
        self._earlier: dict[str, list[FlowRun]] = {}
        self._lost: set[UUID] = set()
        self._since: datetime | None = None
        self.retried = 0
        """How often the run has begun again by itself since a person started it, whoever looked after it then."""

    async def recall(self, *, is_anothers: bool = False) -> int:
        """Find what was started before, by a supervisor that is gone or before the run was run again; how many.

        A run that has begun once has started nothing, unless it ``is_anothers``, who began it and is gone.
        """
        if self._flow_run.run_count <= 1 and not is_anothers:
            return 0
        states = await self._states()
        # How it is cancelled is not how an earlier life of it ended.
        for state in states[:-1] if is_anothers else states:
            if state.is_final() or state.name == _BY_A_PERSON:
                self._since, self.retried = state.timestamp, 0
            elif state.name == _RETRYING:
                self._since, self.retried = state.timestamp, self.retried + 1
        return len(await self._find())

    async def retry(self, words: str, seconds: float) -> bool:
        """Let the run begin again by itself after some seconds; whether Prefect lets it.

        A state of the run says so, to people and to whoever takes the run up.
        """
        states = await self._states()
        if not states or says_cancelled(states[-1]):
            return False
        state: State[Any] = Retrying(message=words)
        # Prefect does not carry the run's place within a limit over to it.
        state.state_details.deployment_concurrency_lease_id = states[-1].state_details.deployment_concurrency_lease_id
        with suppress(ObjectNotFound):
            answer = await insist(partial(self._client.set_flow_run_state, self._flow_run.id, state), "retry a run")
            if answer.status is SetStateStatus.ACCEPT:
                self.retried += 1
                await asyncio.sleep(seconds)
                # By the server's clock, and not by that of whoever set the state.
                self._since = max((child.created for child in await self._find() if child.created), default=None)
                return True
        return False

    async def _states(self) -> list[State[Any]]:
        states = await insist(partial(self._client.read_flow_run_states, self._flow_run.id), "read a run's states")
        return sorted(states, key=lambda state: state.timestamp)

    async def _find(self) -> list[FlowRun]:
        found = [child async for child in children_of(self._client, self._flow_run.id)]
        self._earlier = {}
        for child in found:
            self._earlier.setdefault((child.idempotency_key or "").rpartition("/")[0], []).append(child)
        return found

    def taken(self, branches: Iterable[Branch], *, anew: bool) -> list[UUID]:
        """The earlier runs that branches take as they are, for they succeeded."""
        children = [child for branch in branches if (child := self._earlier_of(branch, anew)) is not None]
        return [child.id for child in children if child.state is not None and child.state.is_completed()]

    def know(self, branch: Branch) -> None:
        """Note for a branch the run that was started for it before, and how that has ended."""
        if (child := self._earlier_of(branch, anew=False)) is not None:
            branch.begun_as(child)
            if child.state is not None and child.state.is_final():
                branch.ended_as(child)

    def has_some_of(self, step: str) -> bool:
        """Whether runs of a step were found that were started before."""
        return any(step_of(child) == step for found in self._earlier.values() for child in found)

    def leave(self, run_ids: Iterable[UUID]) -> None:
        """Take these earlier runs for none, for what they left is gone."""
        self._lost.update(run_ids)

    async def run(self, branch: Branch, job: str, is_too_late: Callable[[], bool], *, anew: bool = False) -> None:
        """Run a branch to its end, or take what is there of it; begin nothing where it is too late for that.

        What succeeded is taken as it is, and what goes on is waited for. What did not succeed is run again where the
        pipeline's run was run again since; with ``anew``, so is what succeeded before that.
        """
        child = self._earlier_of(branch, anew)
        if child is None:
            key = branch.key(self._flow_run.id)
            try:
                # Others fail, and the pipeline is cancelled, while many wait here: what was not sent is not sent then.
                async with self._gate:
                    if is_too_late():
                        return
                    child = await self._begin(branch, job, f"{key}/{len(self._earlier.get(key, []))}")
            except ObjectNotFound:
                branch.not_run("Refused", f"the deployment of job {job!r} was deleted; apply it again")
                return
            except PrefectHTTPStatusError as error:
                branch.not_run("Refused", f"Prefect refused the run: {_detail(error)}")
                return
        branch.begun_as(child)
        if child.state is None or not child.state.is_final():
            self._going.add(child.id)
            try:
                ended = await self._ends.of(child.id)
            except asyncio.CancelledError:
                self._ends.forget(child.id)
                raise
            self._going.discard(child.id)
        else:
            ended = child
        branch.ended_as(ended)

    async def _begin(self, branch: Branch, job: str, key: str) -> FlowRun:
        """Start a run; what was sent arrives, whatever becomes of whoever waits for it."""
        creating = asyncio.create_task(self._create(branch, job, key))
        self._creating.add(creating)
        creating.add_done_callback(self._creating.discard)
        return await asyncio.shield(creating)

    def _earlier_of(self, branch: Branch, anew: bool) -> FlowRun | None:
        """The earlier run that is taken for a branch."""
        earlier = self._earlier.get(branch.key(self._flow_run.id), [])
        return next((each for each in reversed(earlier) if self._counts(each, anew)), None)

    def _counts(self, child: FlowRun, anew: bool) -> bool:
        """Whether an earlier run of a branch is taken for the one that is wanted now."""
        state = child.state
        if child.id in self._lost:
            return False
        if state is None or not (state.is_final() or state.is_cancelling()):
            return True
        is_of_this_life = self._since is None or (child.created is not None and child.created > self._since)
        return is_of_this_life or (state.is_completed() and not anew)

    async def _create(self, branch: Branch, job: str, key: str) -> FlowRun:
        run_id, name, target = self._flow_run.id, f"{branch.step}-{branch.index}", self._targets[job]
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
        child = await insist(
            partial(
                self._client.create_flow_run_from_deployment,
                target.deployment_id,
                parameters=branch.asked,
                name=f"{self._flow_run.name}-{name}",
                tags=[f"{_PIPELINE_TAG}{self._pipeline}", f"{_STEP_TAG}{branch.step}"],
                idempotency_key=key,
                parent_task_run_id=task_run.id,
            ),
            "start a run",
        )
        self._going.add(child.id)
        return child

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
            # At most as many as the gate lets through; an API that is away holds up all that follows, too.
            await asyncio.wait(self._creating)
        return await cancel_children(
            self._client, self._flow_run.id, message, seconds, self._ends, but=but, known=self._going
        )


async def children_of(client: PrefectClient, run_id: UUID, *, going: bool = False) -> AsyncIterator[FlowRun]:
    """The runs that a pipeline's run has started, in the order in which they were made; only those that go on."""
    chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    # A list of those that go on would shrink between two pages, and some would be on neither.
    for child in await _read(client, chosen):
        if not going or _goes_on(child):
            yield child


async def _read(client: PrefectClient, chosen: FlowRunFilter) -> list[FlowRun]:
    """Runs in the order in which they were made, without their parameters, which hold a whole template each."""
    offset = 0
    found: dict[UUID, FlowRun] = {}
    while True:
        page = await insist(
            partial(
                client.read_flow_runs, flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
            ),
            "read a pipeline's runs",
        )
        found |= {child.id: child.model_copy(update={"parameters": {}}) for child in page}
        if len(page) < _PAGE:
            return sorted(found.values(), key=lambda child: str(child.created))
        offset += _PAGE


async def cancel_children(
    client: PrefectClient,
    run_id: UUID,
    message: str,
    seconds: float,
    ends: Ends,
    *,
    but: Collection[str] = (),
    known: Collection[UUID] = (),
) -> int:
    """Cancel what a pipeline's run has started and what goes on; how many have not ended after some seconds.

    ``known`` are runs that are its, whether Prefect still says so or not.
    """
    gate = asyncio.Semaphore(_CANCELLATIONS)
    asked: set[UUID] = set()

    async def cancel(child: FlowRun) -> None:
        async with gate:
            await cancel_child(client, child.id, message)

    # What is made meanwhile, by a supervisor that is about to learn of it, is there the next time.
    while new := [
        child for child in await _going_of(client, run_id, known) if child.id not in asked and step_of(child) not in but
    ]:
        asked.update(child.id for child in new)
        await asyncio.gather(*map(cancel, new))
    if not asked:
        return 0
    waiting = [asyncio.ensure_future(ends.of(child)) for child in asked]
    _, left = await asyncio.wait(waiting, timeout=seconds)
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for child in asked:
        ends.forget(child)
    return len(left)


async def _going_of(client: PrefectClient, run_id: UUID, known: Collection[UUID]) -> list[FlowRun]:
    """What goes on of a pipeline's run; of one that was deleted, Prefect does not know any more what it started."""
    going = [child async for child in children_of(client, run_id, going=True)]
    lost = sorted(set(known) - {child.id for child in going})
    for start in range(0, len(lost), _PAGE):
        these = FlowRunFilterId(any_=lost[start : start + _PAGE])
        going += filter(_goes_on, await _read(client, FlowRunFilter(id=these)))
    return going


def _goes_on(child: FlowRun) -> bool:
    return child.state_type in GOING


def why_cancelled(flow_run: FlowRun) -> str:
    """Why the runs of a pipeline are cancelled, for the message of their states."""
    return f"its pipeline {flow_run.name} was cancelled"


def runs_left(count: int) -> str:
    """What there is to say of a cancelled pipeline of whose runs so many have not ended."""
    return f"{count} runs of it have not ended yet" if count else "no run of it goes on"


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
    """The pipeline's run that started a run; None where somebody else did, who may give keys and tags of any form."""
    key = CHILD_KEY.fullmatch(child.idempotency_key or "")
    is_tagged = (
        any(tag.startswith(_PIPELINE_TAG) for tag in child.tags) and f"{_STEP_TAG}{step_of(child)}" in child.tags
    )
    return UUID(key["run"]) if key is not None and is_tagged else None


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
