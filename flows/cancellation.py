"""Cancelling a run from inside: its flow hears of it even where nobody is left who would tell its process to end.

Prefect's workers tell the process of a run that is Cancelling to end, within a moment. They do not where the worker is
gone, where its stream of events is broken, and where the run is Cancelled at once: one that a person suspended, or that
somebody has given up. A worker that runs flows in a thread of its own process tells nobody: events do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.states import Cancelled

from prefect_jobs.flows.history import was_cancelled
from prefect_jobs.flows.insisting import insist, run_now

# A worker that lives has told the flow's process to end by then.
_WORKER_SECONDS = 3.0
_REPORT_SECONDS = 10.0
NOTHING_LEFT = "no container of it is left"


@dataclass
class Cancellation:
    """Whether the run was cancelled while its flow was at work."""

    heard: bool = False
    told: bool = False
    """Whether its process was told to end, by its worker for instance."""
    seen: bool = False
    """Whether Prefect said that it is cancelled; its worker may act first, and the block may be done before that."""


@asynccontextmanager
async def heeding_cancellation(
    client: PrefectClient, run_id: UUID, bell: asyncio.Event, worker_seconds: float = _WORKER_SECONDS
) -> AsyncIterator[Cancellation]:
    """End the block early when the run is cancelled; ``heard`` tells so. ``bell`` rings when it may be.

    A worker beside this process, if there is one, has ``worker_seconds`` to act before. From the end of the block on,
    the process may be told to end, and the run still reports how it ended.

    Raises:
        TerminationSignal: the process was told to end (SIGTERM) and the run was not cancelled, as Prefect has it.
    """
    working = asyncio.current_task()
    assert working is not None
    cancellation = Cancellation()

    async def heed() -> None:
        await _cancelled(client, run_id, bell, cancellation, worker_seconds)
        cancellation.heard = True
        if not cancellation.told:
            working.cancel()

    def told() -> None:
        # Whoever says it again changes nothing: the block is on its way to its end.
        if not cancellation.told and not cancellation.heard:
            working.cancel()
        cancellation.told = True

    heeding = asyncio.create_task(heed(), name="prefect-jobs: cancellation")
    try:
        with _told_to_end(run_id, told):
            try:
                yield cancellation
                if cancellation.heard or cancellation.told:
                    await asyncio.sleep(0)  # The block was just done; the cancellation arrives here.
            except asyncio.CancelledError:
                if not cancellation.heard and not cancellation.told:
                    raise
                working.uncancel()
            if cancellation.told and not cancellation.heard:
                cancellation.heard = await _is_cancelled(client, run_id)
                if not cancellation.heard:
                    raise TerminationSignal(signal=signal.SIGTERM)
    finally:
        heeding.cancel()


@contextmanager
def _told_to_end(run_id: UUID, act: Callable[[], None]) -> Iterator[None]:
    """Act between two steps of the event loop when this process is told to end.

    Prefect raises an exception in the middle of whatever is at work: where that is a task beside the flow's own, a
    reader of lines for instance, that one ends, and the flow goes on as if nothing had been said; where nothing is, the
    whole flow is cancelled. After the block nobody hears it any more in a process that is this run's alone, or that was
    told before: it ends as soon as it has reported how the run ended, and only SIGKILL ends it before.
    """
    if not has_its_own_process():
        yield
        return
    loop, before, is_deaf = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM), _is_engine_of(run_id)

    def told() -> None:
        nonlocal is_deaf
        is_deaf = True
        act()

    loop.add_signal_handler(signal.SIGTERM, told)
    try:
        yield
    finally:
        if is_deaf:
            # Not the system's way to ignore it, which whatever is started inherits.
            loop.add_signal_handler(signal.SIGTERM, lambda: None)
        else:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)


def _is_engine_of(run_id: UUID) -> bool:
    """Whether this process was started to run this flow run, and nothing else."""
    return str(run_id) in (os.environ.get("PREFECT__FLOW_RUN_ID"), *sys.argv[1:2])


async def _is_cancelled(client: PrefectClient, run_id: UUID) -> bool:
    """Whether the run was cancelled, as far as the API says so in time."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_REPORT_SECONDS):
            return await was_cancelled(client, run_id)
    return False


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


async def _cancelled(
    client: PrefectClient, run_id: UUID, bell: asyncio.Event, cancellation: Cancellation, worker_seconds: float
) -> None:
    """Wait until the run is cancelled and its worker, if it has one beside this process, has had the time to act."""
    while True:
        await bell.wait()
        bell.clear()
        try:
            flow_run = await run_now(client, run_id)
        except ObjectNotFound:
            return  # Deleted: nobody can want its container any more.
        if flow_run.state is not None and flow_run.state.is_cancelled():
            return
        if flow_run.state is not None and flow_run.state.is_cancelling():
            cancellation.seen = True
            if has_its_own_process():
                await asyncio.sleep(worker_seconds)
            return


def has_its_own_process() -> bool:
    """Whether this flow has its process to itself, whose worker tells it to end by a signal."""
    return threading.current_thread() is threading.main_thread()
