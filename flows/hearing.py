"""Hearing of cancellations: one event stream for all runs of an event loop, and a look now and then behind it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.schemas.events import Event

from prefect_jobs.blocks.sharing import Shared
from prefect_jobs.flows.events import Events, run_of

logger = logging.getLogger("prefect_jobs.hearing")

_EVENTS = ["prefect.flow-run.Cancelling", "prefect.flow-run.Cancelled"]
# How often the API is asked while the stream is there, and while it is not.
_LOOK, _LOOK_WITHOUT_EVENTS = 20.0, 2.0
# The API lists no more at once.
_MOST = 200


class Hearing:
    """Rings for each run that may be cancelled; whoever hears it asks what became of the run."""

    def __init__(self) -> None:
        self._bells: dict[UUID, asyncio.Event] = {}
        self._events = Events(*_EVENTS, hear=self._ring, connect=self._ring_all)
        self._tasks = [
            asyncio.create_task(self._events.listen(), name="prefect-jobs: events of cancellations"),
            asyncio.create_task(self._look(), name="prefect-jobs: a look for cancellations"),
        ]

    async def close(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def bell(self, run_id: UUID) -> AsyncIterator[asyncio.Event]:
        """What rings for a run from now on; one who wants to know what was before asks the API."""
        bell = self._bells[run_id] = asyncio.Event()
        if not self._events.connected.is_set():
            bell.set()
        try:
            yield bell
        finally:
            if self._bells.get(run_id) is bell:
                del self._bells[run_id]

    async def _look(self) -> None:
        """Find what no event told of: runs that are cancelled, and runs that are gone."""
        is_blind = False
        async with get_client() as client:
            while True:
                hears = self._events.connected.is_set() and not is_blind
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK if hears else _LOOK_WITHOUT_EVENTS):
                        await self._events.broke.wait()
                self._events.broke.clear()
                listed, is_blind = list(self._bells), False
                for start in range(0, len(listed), _MOST):
                    try:
                        await self._look_for(client, listed[start : start + _MOST])
                    except Exception as error:
                        is_blind = True
                        logger.debug("Prefect's API could not be asked for cancelled runs: %r", error)

    async def _look_for(self, client: PrefectClient, listed: list[UUID]) -> None:
        these = FlowRunFilterId(any_=listed)
        cancelled = FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
        chosen = FlowRunFilter(id=these, state=FlowRunFilterState(type=cancelled))
        sort = FlowRunSort.EXPECTED_START_TIME_ASC
        found = {run.id for run in await client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=_MOST)}
        if await client.count_flow_runs(flow_run_filter=FlowRunFilter(id=these)) < len(listed):
            found.update(listed)
        for run_id in found & self._bells.keys():
            self._bells[run_id].set()

    def _ring(self, event: Event) -> None:
        if (run_id := run_of(event)) and (bell := self._bells.get(run_id)):
            bell.set()

    def _ring_all(self) -> None:
        for bell in self._bells.values():
            bell.set()


_SHARED: Shared[None, Hearing] = Shared(lambda _: Hearing())


def hearing() -> AbstractAsyncContextManager[Hearing]:
    """The event loop's hearing."""
    return _SHARED.use(None)
