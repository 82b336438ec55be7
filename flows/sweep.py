"""The reconciler: removes what belongs to runs that ended or vanished, and touches nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from prefect_jobs.blocks.engine import Engine, Found
from prefect_jobs.blocks.loading import load_infrastructure, saved_infrastructures
from prefect_jobs.errors import InfrastructureError, MissingExtraError, NotFoundError
from prefect_jobs.flows.cancellation import end_cancelled
from prefect_jobs.flows.children import GOING, cancel_child, pipeline_of
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.installation import installation_of
from prefect_jobs.quantities import Duration

# A run that just ended is still tidied up by its own supervisor, and one that crashed may be taken up again.
DEFAULT_AGE = Duration("10m")
_ENGINE_SECONDS = 60.0
_PAGE = 200
_JOBS = FlowFilter(name=FlowFilterName(any_=["job"]))


@dataclass(frozen=True, slots=True)
class Swept:
    """A run of which something was left."""

    infrastructure: str
    run_id: UUID
    containers: int
    why: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep removed, and the infrastructures that it could not look at."""

    removed: list[Swept]
    problems: list[str]
    cancelled: list[FlowRun]
    """Runs of pipelines' steps that went on although their pipeline's run had ended."""


async def sweep_all(
    client: PrefectClient, references: Sequence[str] = (), *, older_than: Duration = DEFAULT_AGE, dry_run: bool = False
) -> Sweep:
    """Remove what runs left that ended at least ``older_than`` ago, or that Prefect does not know any more.

    Before that, cancel the runs of steps whose pipeline's run ended so long ago, or is not known any more.

    ``references`` are infrastructures as jobs name them; without any, all saved blocks and each type's defaults. Only
    what carries this installation's mark is touched. With ``dry_run`` nothing is removed.
    """
    mine = await installation_of(client)
    removed: list[Swept] = []
    problems: list[str] = []
    orphans = await orphans_of_pipelines(client, older_than)
    if not dry_run:
        for orphan in orphans:
            await cancel_child(client, orphan.id, "its pipeline's run has ended, and a sweep cancelled it")
    for reference in references or await saved_infrastructures(client):
        try:
            infrastructure = await load_infrastructure(reference)
            async with asyncio.timeout(_ENGINE_SECONDS), infrastructure.engine() as engine:
                removed += await _sweep_engine(client, engine, reference, mine, older_than, dry_run)
        except MissingExtraError:
            if references:
                raise
        except (InfrastructureError, NotFoundError, TimeoutError) as error:
            problems.append(f"{reference}: {error or f'no answer within {_ENGINE_SECONDS:g} s'}")
    return Sweep(removed, problems, orphans)


async def orphans_of_pipelines(client: PrefectClient, older_than: Duration) -> list[FlowRun]:
    """The runs of steps that go on although the run of their pipeline ended at least so long ago, or was deleted."""
    # Whose pipeline's run was deleted has lost the task run that was its parent, and keeps its tags and its key.
    chosen = FlowRunFilter(
        tags=FlowRunFilterTags(is_null_=False),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING)),
    )
    ask = partial(client.read_flow_runs, flow_filter=_JOBS, flow_run_filter=chosen, sort=FlowRunSort.ID_DESC)
    going: list[FlowRun] = []
    offset = 0
    while True:
        page = await insist(partial(ask, limit=_PAGE, offset=offset), "read runs of steps")
        going += [child.model_copy(update={"parameters": {}}) for child in page if pipeline_of(child) is not None]
        if len(page) < _PAGE:
            break
        offset += _PAGE
    parents = {parent for child in going if (parent := pipeline_of(child)) is not None}
    gone = {parent for parent in parents if await _why_gone(client, parent, older_than, cleans_up=True) is not None}
    return [child for child in going if pipeline_of(child) in gone and child.state_type is not StateType.CANCELLING]


async def discard_expired(client: PrefectClient, engine: Engine, installation: str) -> None:
    """Remove the containers of an installation that were kept for a look and whose time is over."""
    listed = [found for found in await engine.containers() if found.installation == installation]
    expired = [found for found in listed if found.kept_until is not None and not found.is_kept]
    for found in expired:
        await engine.discard(found.identity)
    left = {found.run_id for found in listed if found not in expired}
    for run_id in {found.run_id for found in expired} - left:
        if await _is_over(client, run_id):
            await engine.release(run_id)


async def _sweep_engine(
    client: PrefectClient, engine: Engine, reference: str, mine: str, older_than: Duration, dry_run: bool
) -> list[Swept]:
    containers: dict[UUID, list[Found]] = {}
    for found in await engine.containers():
        containers.setdefault(found.run_id, []).append(found)
    swept = []
    for run_id, installation in (await engine.runs()).items():
        there = containers.get(run_id, [])
        going = [found for found in there if not found.is_kept]
        only_kept = bool(there) and not going
        if installation != mine or only_kept:
            continue
        if (why := await _why_gone(client, run_id, older_than)) is None:
            continue
        swept.append(Swept(reference, run_id, len(going), why))
        if dry_run:
            continue
        for found in going:
            await engine.discard(found.identity)
        await engine.release(run_id)
        with suppress(ObjectNotFound):
            await end_cancelled(client, run_id, "its supervisor was gone, and a sweep removed its container")
    return swept


async def _is_over(client: PrefectClient, run_id: UUID) -> bool:
    """Whether nobody can take the run up again; one that crashed may be."""
    try:
        state = (await run_now(client, run_id)).state
    except ObjectNotFound:
        return True
    return state is not None and state.is_final() and not state.is_crashed()


async def _why_gone(
    client: PrefectClient, run_id: UUID, older_than: Duration, *, cleans_up: bool = False
) -> str | None:
    """Why what a run left may go, or None while the run may still need it.

    One that ``cleans_up`` starts runs while it is Cancelling, and Prefect ends it where nobody does.
    """
    try:
        flow_run = await run_now(client, run_id)
    except ObjectNotFound:
        return "Prefect does not know the run any more"
    state = flow_run.state
    if state is None or not (state.is_final() or (state.is_cancelling() and not cleans_up)):
        return None
    if datetime.now(UTC) - state.timestamp < timedelta(seconds=older_than.seconds):
        return None
    if state.is_cancelling():
        return "nobody carried out its cancellation"
    return f"the run ended {state.name}"


@flow(name="sweep", persist_result=False)
async def sweep(infrastructures: list[str] | None = None, older_than: str = str(DEFAULT_AGE)) -> str:
    """Remove what runs left that ended or vanished."""
    async with get_client() as client:
        done = await sweep_all(client, infrastructures or (), older_than=Duration(older_than))
    logger = get_run_logger()
    for each in done.removed:
        logger.info("Removed what run %s left on %s: %s", each.run_id, each.infrastructure, each.why)
    for orphan in done.cancelled:
        logger.info("Cancelled %s, for its pipeline's run has ended", orphan.name)
    for problem in done.problems:
        logger.warning("Not looked at: %s", problem)
    return f"{len(done.removed)} runs had left something; {len(done.problems)} infrastructures could not be looked at"
