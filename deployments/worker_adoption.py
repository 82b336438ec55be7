"""Taking over the runs of supervisors that are gone: who is dead, which runs were theirs, and taking each once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

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
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Pending, Scheduled
from prefect.utilities.engine import propose_state

from prefect_jobs.deployments.worker_lease import LEASE_SECONDS, Lease, Seen, claim, finish, read_leases

logger = logging.getLogger("prefect_jobs.worker")

_PAGE = 200
_LOOK_ANYWAY = 60.0
_OWNED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_OWNER = re.compile(r"supervisor ([0-9a-f]{32})$")


def owner_of(lease: str, worker: str = "") -> str:
    """How a run says whose it is: by a lease, and by the name of a worker for people."""
    return f"worker {worker!r}, supervisor {lease}" if worker else f"supervisor {lease}"


def taken_by(lease: str, worker: str = "", *, again: bool = False) -> State[Any]:
    """The state of a run that a supervisor has taken and not begun."""
    words = f"taken by {owner_of(lease, worker)}"
    return Pending(name="Reattaching", message=words) if again else Pending(message=words)


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
        self._looked = 0.0
        self._scanned = -_LOOK_ANYWAY

    async def look(self, client: PrefectClient, lease: Lease) -> None:
        """Take over what is left by the dead; called every few seconds.

        Raises:
            httpx.HTTPError: the API does not answer.
        """
        leases = await read_leases(client)
        now = time.monotonic()
        vanished = self._watched.keys() - leases.keys()
        dead = self._dead(leases, lease.id, now)
        is_time = vanished or dead or now - self._scanned >= _LOOK_ANYWAY
        if is_time and await self._scan(client, lease, leases, dead):
            self._scanned = now

    def _dead(self, leases: dict[str, Seen], me: str, now: float) -> set[str]:
        """Whose leases are those of dead supervisors."""
        # While the API was away for this one, it may have been away for all.
        blind = now - self._looked > LEASE_SECONDS / 2
        self._looked = now
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
        left = {name for name, seen in leases.items() if seen.holder.heir not in heirs | {None}}
        return (dead | left) - {me}

    async def _scan(self, client: PrefectClient, lease: Lease, leases: dict[str, Seen], dead: set[str]) -> bool:
        """Take over the runs of the dead, and of those who have no lease any more; whether all were looked at."""
        left: dict[str, list[FlowRun]] = {name: [] for name in dead}
        for_long = datetime.now(UTC) - timedelta(seconds=LEASE_SECONDS)
        alive = leases.keys() - dead - {lease.id}
        for flow_run in await self._owned(client):
            if self._mine(flow_run.id) or _said_owner(flow_run) in alive:
                continue
            owner = await _owner(client, flow_run)
            if owner is not None and owner not in alive:
                left.setdefault(owner, []).append(flow_run)
            elif owner is None and _is_cancelled_since(flow_run, for_long):
                self._finish_cancelled(flow_run, lease)
        complete = True
        for owner, flow_runs in left.items():
            complete &= await self._take_over(client, lease, owner, leases.get(owner), flow_runs)
        return complete

    async def _take_over(
        self, client: PrefectClient, lease: Lease, owner: str, seen: Seen | None, flow_runs: list[FlowRun]
    ) -> bool:
        claimed = None
        if owner != lease.id:
            claimed = await claim(client, owner, seen, lease.id, self._pool)
            if claimed is None:
                return False
        taken = 0
        for flow_run in flow_runs:
            if not lease.is_held:
                return False
            with suppress(ObjectNotFound, Abort):
                taken += await self._take(client, lease, flow_run.id, owner)
        if claimed is not None:
            await finish(client, claimed)
        if taken:
            logger.info("Taken over from supervisor %s, which is gone: %d runs", owner, taken)
        return True

    async def _take(self, client: PrefectClient, lease: Lease, run_id: UUID, owner: str) -> bool:
        """Take over one run, as it is now; whether it was still to be taken."""
        flow_run = await client.read_flow_run(run_id)
        state = flow_run.state
        if state is None or state.type not in _OWNED or self._mine(run_id) or await _owner(client, flow_run) != owner:
            return False
        if state.is_cancelling():
            self._finish_cancelled(flow_run, lease)
            return True
        if state.state_details.deployment_concurrency_lease_id:
            # Gives its place within the limit back, and takes one anew.
            await client.set_flow_run_state(run_id, Scheduled(name="Reattaching", message=f"left by {owner_of(owner)}"))
            taken = await propose_state(client, taken_by(lease.id, lease.worker), run_id)
            if taken.is_pending():
                self._adopt(flow_run.model_copy(update={"state": taken}), lease)
                return True
            # Somebody else has the place by now; the container runs all the same, and somebody must look after it.
        taken = taken_by(lease.id, lease.worker, again=True)
        result: OrchestrationResult[Any] = await client.set_flow_run_state(run_id, taken, force=True)
        self._adopt(flow_run.model_copy(update={"state": result.state}), lease)
        return True

    async def _owned(self, client: PrefectClient) -> list[FlowRun]:
        """All runs of the pool that somebody has taken and that have not ended."""
        found: list[FlowRun] = []
        while True:
            page = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OWNED))),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool])),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=_PAGE,
                offset=len(found),
            )
            found += page
            if len(page) < _PAGE:
                return found


def _said_owner(flow_run: FlowRun) -> str | None:
    """The lease of a supervisor that the run itself names: that of an earlier one, perhaps, while it is beginning."""
    state = flow_run.state
    said = state.message if state is not None and state.is_pending() else flow_run.infrastructure_pid
    found = _OWNER.search(said or "")
    return found[1] if found else None


async def _owner(client: PrefectClient, flow_run: FlowRun) -> str | None:
    """The lease of the supervisor that took a run last; None where it was none of this project's."""
    if flow_run.state is not None and flow_run.state.is_pending():
        return _said_owner(flow_run)
    states = await client.read_flow_run_states(flow_run.id)
    for state in sorted(states, key=lambda state: state.timestamp, reverse=True):
        if state.is_pending() and (found := _OWNER.search(state.message or "")):
            return found[1]
    return None


def _is_cancelled_since(flow_run: FlowRun, latest: datetime) -> bool:
    """Whether a run that nobody ever took has been Cancelling for some time."""
    state = flow_run.state
    return state is not None and state.is_cancelling() and state.timestamp < latest
