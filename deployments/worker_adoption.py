"""Taking over the runs of supervisors that are gone: who is dead, which runs were theirs, and taking each once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from prefect_jobs.blocks.clock import clock
from prefect_jobs.deployments import worker_figures as figures
from prefect_jobs.deployments.worker_lease import LEASE_SECONDS, Lease, Seen, claim, finish, read_leases
from prefect_jobs.deployments.worker_machine import is_bound, is_here
from prefect_jobs.deployments.worker_owner import AGAIN, owner_now, said_owner, taken_by, taker
from prefect_jobs.deployments.worker_places import keep_place

T = TypeVar("T")
logger = logging.getLogger("prefect_jobs.worker")

_PAGE = 200
# Runs that are taken over at once.
_AT_ONCE = 8
_LOOK_ANYWAY = 60.0
_OWNED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


class Adoption:
    """Looks for runs whose supervisor is gone, and hands them on."""

    def __init__(
        self,
        pool: str,
        mine: Callable[[UUID], bool],
        adopt: Callable[[FlowRun, Lease], None],
        finish_cancelled: Callable[[FlowRun, Lease], None],
    ) -> None:
        self._pool = pool
        self._mine = mine
        self._adopt = adopt
        self._finish_cancelled = finish_cancelled
        self._watched: dict[str, tuple[int, float]] = {}
        self._out_of_sight: set[UUID] = set()
        self._looked = 0.0
        self._scanned = -_LOOK_ANYWAY

    async def look(self, client: PrefectClient, lease: Lease) -> None:
        """Take over what is left by the dead; called every few seconds.

        Raises:
            httpx.HTTPError: the API does not answer.
        """
        leases = await read_leases(client)
        now = clock()
        vanished = self._watched.keys() - leases.keys()
        dead = self._dead(leases, lease.id, now)
        if vanished or dead or now - self._scanned >= _LOOK_ANYWAY:
            # Before: somebody may ask for another look meanwhile.
            self._scanned, complete = now, False
            try:
                complete = await self._scan(client, lease, leases, dead)
            finally:
                if not complete:
                    self.look_through_all()
        # However long it took, the API was there.
        self._looked = clock()

    def look_through_all(self) -> None:
        """Look at every run the next time: one may have been left in the middle."""
        self._scanned = -_LOOK_ANYWAY

    def _dead(self, leases: dict[str, Seen], me: str, now: float) -> set[str]:
        """Whose leases are those of dead supervisors."""
        # While the API was away for this one, it may have been away for all.
        blind = now - self._looked > LEASE_SECONDS / 2
        watched, dead = {}, set()
        for name, seen in leases.items():
            renewed, since = self._watched.get(name, (-1, now))
            if blind or renewed != seen.holder.renewed:
                since = now
            watched[name] = (seen.holder.renewed, since)
            silent = now - since >= LEASE_SECONDS and seen.holder.heir is None
            if seen.holder.pool == self._pool and (silent or seen.holder.place.is_dead):
                dead.add(name)
        self._watched = watched
        # What somebody has begun to take over is left again when that one dies, is told to end, or stumbled.
        heirs = leases.keys() - dead - {me}
        left = {
            name
            for name, seen in leases.items()
            if seen.holder.pool == self._pool and seen.holder.heir not in heirs | {None}
        }
        alive = [name for name, seen in leases.items() if seen.holder.pool == self._pool and seen.holder.heir is None]
        figures.SUPERVISORS.set(len(set(alive) - dead))
        return (dead | left) - {me}

    async def _scan(self, client: PrefectClient, lease: Lease, leases: dict[str, Seen], dead: set[str]) -> bool:
        """Take over the runs of the dead, and of those who have no lease any more; whether all were looked at."""
        left: dict[str, list[FlowRun]] = {name: [] for name in dead}
        for_long = datetime.now(UTC) - timedelta(seconds=LEASE_SECONDS)
        alive = leases.keys() - dead - {lease.id}
        complete = True
        for flow_run in await runs_in(client, self._pool, _OWNED):
            said = said_owner(flow_run)
            if self._mine(flow_run.id) or (said is not None and said.lease in alive):
                continue
            try:
                owner = await owner_now(client, flow_run)
                if owner is not None and owner.lease not in alive and await self._is_in_sight(flow_run, owner.machine):
                    left.setdefault(owner.lease, []).append(flow_run)
            except httpx.TransportError:
                raise
            except Exception as error:  # One run that cannot be read does not keep the others from being taken over.
                complete = False
                logger.warning("Run %s could not be looked at, and is looked at again: %r", flow_run.id, error)
                continue
            if owner is None and _is_cancelled_since(flow_run, for_long):
                self._finish_cancelled(flow_run, lease)
        for name, flow_runs in left.items():
            complete &= await self._take_over(client, lease, name, leases.get(name), flow_runs)
        return complete

    async def _is_in_sight(self, flow_run: FlowRun, machine: str | None) -> bool:
        """Whether this machine sees the container of a run; the run waits for a supervisor of the one that does."""
        if machine is None or is_here(machine) or not await is_bound(flow_run):
            return True
        if flow_run.id not in self._out_of_sight:
            self._out_of_sight.add(flow_run.id)
            logger.warning("Run %s waits for a worker on %s, where its container is", flow_run.id, machine)
        return False

    async def _take_over(
        self, client: PrefectClient, lease: Lease, owner: str, seen: Seen | None, flow_runs: list[FlowRun]
    ) -> bool:
        claimed = None
        if owner != lease.id:
            claimed = await claim(client, owner, seen, lease.id, self._pool)
            if claimed is None:
                return False

        complete = True

        async def take(flow_run: FlowRun) -> bool:
            nonlocal complete
            try:
                return lease.is_held and await self._take(client, lease, flow_run.id, owner)
            except ObjectNotFound:
                pass
            except httpx.TransportError:
                raise
            except Exception as error:  # One run that cannot be taken over does not keep the others from it.
                complete = False
                logger.warning("Run %s could not be taken over, and is tried again: %r", flow_run.id, error)
            return False

        try:
            taken = sum(await _side_by_side(take, flow_runs))
        finally:
            # What is left after a stumble, or because this one is told to stop, is left for everybody.
            if claimed is not None:
                await asyncio.shield(finish(client, claimed))
        if not lease.is_held:
            return False
        if taken:
            logger.info("Taken over from supervisor %s, which is gone: %d runs", owner, taken)
        return complete

    async def _take(self, client: PrefectClient, lease: Lease, run_id: UUID, owner: str) -> bool:
        """Take over one run, as it is now; whether it was still to be taken."""
        flow_run = await client.read_flow_run(run_id)
        state = flow_run.state
        if state is None or state.type not in _OWNED or self._mine(run_id):
            return False
        owned = await owner_now(client, flow_run)
        if owned is None or owned.lease != owner or await had_ended(client, run_id, state):
            return False
        if state.is_cancelling():
            self._finish_cancelled(flow_run, lease)
            return True
        place = await keep_place(client, flow_run)
        pending = taken_by(lease.id, lease.worker, again=True)
        pending.state_details.deployment_concurrency_lease_id = place
        if not lease.is_held:  # This process may have stood still since it asked.
            return False
        result: OrchestrationResult[Any] = await client.set_flow_run_state(run_id, pending, force=True)
        if await self._was_overtaken(client, run_id, owner, state, result.state):
            return False
        self._adopt(flow_run.model_copy(update={"state": result.state}), lease)
        return True

    async def _was_overtaken(
        self, client: PrefectClient, run_id: UUID, owner: str, read: State[Any], set_now: State[Any] | None
    ) -> bool:
        """Whether somebody had changed a run between the look at it and taking it; then it is as they wanted it."""
        states = sorted(await client.read_flow_run_states(run_id), key=lambda state: state.timestamp)
        # A state has the time of whoever made it, which may be long before it was set.
        mine = None if set_now is None else set_now.id
        between = [state for state in states if state.timestamp > read.timestamp and state.id != mine]
        if not between:
            return False
        before = between[-1]
        # This one stood still when it was about to ask, was given up, and another took the run.
        has_a_newer = any(took.lease != owner for state in between if (took := taker(state)))
        if not (has_a_newer or before.is_final() or before.is_cancelling()):
            return False
        await _put_back(client, run_id, before)
        self.look_through_all()
        return True


async def runs_in(client: PrefectClient, pool: str, states: list[StateType]) -> list[FlowRun]:
    """All runs of a pool that are in some states."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


async def had_ended(client: PrefectClient, run_id: UUID, taken: State[Any]) -> bool:
    """Whether a run had ended when it was taken, as one may that was read a while before; then it is put back.

    Prefect lets a run be taken from most ends, and tells only of one that was scheduled for when that was.
    """
    if not taken.is_pending() or taken.name == AGAIN or taken.state_details.scheduled_time is not None:
        return False
    states = sorted(await client.read_flow_run_states(run_id), key=lambda state: state.timestamp)
    before = [state for state in states if state.id != taken.id]
    if not before or not before[-1].is_final():
        return False
    await _put_back(client, run_id, before[-1])
    return True


async def _put_back(client: PrefectClient, run_id: UUID, before: State[Any]) -> None:
    meant: State[Any] = State(type=before.type, name=before.name, message=before.message)
    meant.state_details.deployment_concurrency_lease_id = before.state_details.deployment_concurrency_lease_id
    await client.set_flow_run_state(run_id, meant, force=True)


async def _side_by_side(work: Callable[[FlowRun], Awaitable[T]], flow_runs: list[FlowRun]) -> list[T]:
    """The results of some work for each run, in their order; an error is raised when nothing is at work any more."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(flow_run: FlowRun) -> T:
        async with gate:
            return await work(flow_run)

    done = await asyncio.gather(*map(one, flow_runs), return_exceptions=True)
    results: list[T] = []
    for each in done:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


def _is_cancelled_since(flow_run: FlowRun, latest: datetime) -> bool:
    """Whether a run that nobody ever took, no worker of another type either, has been Cancelling for some time."""
    state = flow_run.state
    is_anyones = flow_run.infrastructure_pid is not None and said_owner(flow_run) is None
    return state is not None and state.is_cancelling() and state.timestamp < latest and not is_anyones
