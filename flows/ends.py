"""Waiting for the ends of runs: one subscription for all runs of an event loop, and a look at all of them behind it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.schemas.events import Event

from prefect_jobs.blocks.sharing import Shared
from prefect_jobs.flows.events import Events, run_of
from prefect_jobs.flows.states import STATE_NAMES

logger = logging.getLogger("prefect_jobs.ends")

_RUN = "prefect.flow-run."
# How often the API is asked for runs of which no event told, while events arrive and while they do not; the first time
# soon, for a run may have ended before anybody waited for it.
_LOOK, _LOOK_WITHOUT_EVENTS, _FIRST_LOOK = 20.0, 2.0, 1.0
# What rings within this time is asked for at once.
_GATHER = 0.2
_TICK = 1.0
# The API lists no more at once.
_MOST = 200


@dataclass(slots=True)
class _Wait:
    ended: asyncio.Future[FlowRun | None]
    looked: float


class Ends:
    """Tells when runs have ended."""

    def __init__(self) -> None:
        self._waits: dict[UUID, _Wait] = {}
        self._rung: set[UUID] = set()
        self._wake = asyncio.Event()
        names = [f"{_RUN}{name}" for name in sorted({"Completed", "Failed", "Crashed", "Cancelled", *STATE_NAMES})]
        self._events = Events(*names, hear=self._hear, connect=self._ring_all)
        self._tasks = [
            asyncio.create_task(self._events.listen(), name="prefect-jobs: events of ends"),
            asyncio.create_task(self._look(), name="prefect-jobs: a look for ends"),
        ]

    async def close(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def of(self, run_id: UUID) -> FlowRun | None:
        """A run when it has ended; None where it was deleted."""
        loop = asyncio.get_running_loop()
        wait = self._waits.get(run_id)
        if wait is None:
            wait = self._waits[run_id] = _Wait(loop.create_future(), loop.time() - _LOOK + _FIRST_LOOK)
        return await asyncio.shield(wait.ended)

    def forget(self, run_id: UUID) -> None:
        """Nobody waits for a run any more."""
        if wait := self._waits.pop(run_id, None):
            wait.ended.cancel()

    def _hear(self, event: Event) -> None:
        if (run_id := run_of(event)) is not None and run_id in self._waits:
            self._rung.add(run_id)
            self._wake.set()

    def _ring_all(self) -> None:
        self._rung.update(self._waits)
        self._wake.set()

    async def _look(self) -> None:
        async with get_client() as client:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._wake.wait()
                        await asyncio.sleep(_GATHER)
                self._wake.clear()
                due = self._due()
                for start in range(0, len(due), _MOST):
                    try:
                        await self._look_for(client, due[start : start + _MOST])
                    except Exception as error:
                        logger.debug("Prefect's API could not be asked for runs that ended: %r", error)

    def _due(self) -> list[UUID]:
        now = asyncio.get_running_loop().time()
        patience = _LOOK if self._events.connected.is_set() else _LOOK_WITHOUT_EVENTS
        due = [each for each, wait in self._waits.items() if each in self._rung or now - wait.looked >= patience]
        for each in due:
            # Asked again after that time also where the API does not answer.
            self._waits[each].looked = now - patience + _LOOK_WITHOUT_EVENTS
        self._rung.clear()
        return due

    async def _look_for(self, client: PrefectClient, due: list[UUID]) -> None:
        these = FlowRunFilterId(any_=due)
        ended = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES)))
        chosen, sort = FlowRunFilter(id=these, state=ended), FlowRunSort.EXPECTED_START_TIME_ASC
        found = {run.id: run for run in await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=_MOST)}
        left = [each for each in due if each not in found]
        there = set(left)
        if left and await client.count_flow_runs(flow_run_filter=FlowRunFilter(id=these)) < len(due):
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=left))
            there = {run.id for run in await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=_MOST)}
        now = asyncio.get_running_loop().time()
        for each in due:
            if each in there:
                if wait := self._waits.get(each):
                    wait.looked = now
            elif (wait := self._waits.pop(each, None)) and not wait.ended.done():
                wait.ended.set_result(found.get(each))


_SHARED: Shared[None, Ends] = Shared(lambda _: Ends())


def ends() -> AbstractAsyncContextManager[Ends]:
    """What tells of ends in this event loop."""
    return _SHARED.use(None)
