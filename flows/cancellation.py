"""Cancelling a run from inside: its flow hears of it even where nobody is left who would tell its process to end.

Prefect's workers tell the process of a run that is Cancelling to end, within a moment. They do not where the worker is
gone, where its stream of events is broken, and where the run is Cancelled at once: one that a person suspended, or that
somebody has given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from prefect_jobs.flows.insisting import insist, run_now

# A worker that lives has told the flow's process to end by then.
_WORKER_SECONDS = 3.0
# How soon a stream of events that broke is opened again, and how long the API is believed without an event.
_PAUSE, _LONGEST_SILENCE = 5.0, 30.0
_REPORT_SECONDS = 10.0
NOTHING_LEFT = "no container of it is left"
_EVENTS = ["prefect.flow-run.Cancelling", "prefect.flow-run.Cancelled"]


@dataclass
class Cancellation:
    """Whether the run was cancelled while its flow was at work."""

    heard: bool = False


@asynccontextmanager
async def heeding_cancellation(client: PrefectClient, run_id: UUID) -> AsyncIterator[Cancellation]:
    """End the block early when the run is cancelled; ``heard`` tells so.

    Where the block is ended from outside, because a worker tells the process to end, a run that was cancelled is ended
    Cancelled before this process is: whoever comes after has nothing to do for it.
    """
    working = asyncio.current_task()
    assert working is not None
    cancellation = Cancellation()

    async def heed() -> None:
        await _cancelled(client, run_id)
        cancellation.heard = True
        working.cancel()

    heeding = asyncio.create_task(heed(), name="prefect-jobs: cancellation")
    try:
        yield cancellation
        if cancellation.heard:
            await asyncio.sleep(0)  # The block was just done; the cancellation arrives here.
    except asyncio.CancelledError:
        if not cancellation.heard:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_REPORT_SECONDS):
                    await end_cancelled(client, run_id)
            raise
        working.uncancel()
    finally:
        heeding.cancel()


async def end_cancelled(client: PrefectClient, run_id: UUID, how: str = NOTHING_LEFT) -> bool:
    """Let a run that is Cancelling end Cancelled, with the words of who cancelled it; whether it was Cancelling."""
    flow_run = await run_now(client, run_id)
    state = flow_run.state
    if state is None or not state.is_cancelling():
        return False
    ended: State[Any] = Cancelled(message=cancelled_message(state, how))
    await insist(partial(client.set_flow_run_state, run_id, ended), "end a run")
    return True


def cancelled_message(state: State[Any] | None, how: str = NOTHING_LEFT) -> str:
    """What a cancelled run says: who cancelled it, where that is known, and what was done."""
    who = (state.message if state is not None else None) or "cancelled through Prefect"
    return f"{who}; {how}"


async def _cancelled(client: PrefectClient, run_id: UUID) -> None:
    """Wait until the run is cancelled and its worker has had the time to act on it."""
    bell = asyncio.Event()
    ringing = asyncio.create_task(_ring(bell, run_id), name="prefect-jobs: events of a run")
    try:
        while True:
            bell.clear()
            try:
                flow_run = await run_now(client, run_id)
            except ObjectNotFound:
                return  # Deleted: nobody can want its container any more.
            if flow_run.state is not None and flow_run.state.is_cancelled():
                return
            if flow_run.state is not None and flow_run.state.is_cancelling():
                await asyncio.sleep(_WORKER_SECONDS)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_SILENCE):
                    await bell.wait()
    finally:
        ringing.cancel()


async def _ring(bell: asyncio.Event, run_id: UUID) -> None:
    """Ring for each event that the run is cancelled, and whenever one may have been missed."""
    chosen = EventFilter(
        event=EventNameFilter(name=_EVENTS), resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"])
    )
    while True:
        with contextlib.suppress(Exception):
            async with get_events_subscriber(filter=chosen) as events:
                bell.set()
                async for _ in events:
                    bell.set()
        await asyncio.sleep(_PAUSE)
