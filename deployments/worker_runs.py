"""The flow runs of one worker, at work in an event loop of their own thread."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.flow_engine import run_flow
from prefect.settings import (
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Crashed

from prefect_jobs.blocks.engine import FENCE
from prefect_jobs.blocks.sharing import holding
from prefect_jobs.deployments import worker_figures as figures
from prefect_jobs.deployments.worker_api import Gate, RunsClient, shared_client
from prefect_jobs.deployments.worker_flows import Flows
from prefect_jobs.deployments.worker_garbage import Garbage
from prefect_jobs.deployments.worker_heartbeats import Heartbeats
from prefect_jobs.deployments.worker_places import renew_places
from prefect_jobs.errors import JobError
from prefect_jobs.flows.cancellation import end_cancelled
from prefect_jobs.flows.ending import end_remains
from prefect_jobs.flows.hearing import hearing
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.supervise import STARTED

logger = logging.getLogger("prefect_jobs.worker")

_OPEN_SECONDS = 30.0
# For requests that are on their way when the runs are left.
_QUIET_SECONDS = 5.0
# How often a run is begun that the worker stumbles over each time, for a reason that is none of the run's own.
_TRIES = 3
# How long one step of the loop may be late before it is said.
_LATE = 0.2
_PROBE = 0.05


class Runs:
    """Runs flows side by side, and tells of each that ended, or was left in the middle by an error of the worker.

    All methods but those that begin with an underscore are called from another thread than the runs'.
    """

    def __init__(self, owner: str, ended: Callable[[UUID, bool], None], context: Context) -> None:
        self.owner = owner
        self._ended = ended
        self._gate = Gate()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._open = threading.Event()
        self._left = asyncio.Event()
        self._context = context.copy()
        self._client: RunsClient | None = None
        self._flows = Flows()
        self._frozen = threading.Event()
        self._stumbles: Counter[UUID] = Counter()
        self._garbage = Garbage()
        self._heartbeats = Heartbeats(get_current_settings().flows.heartbeat_frequency)
        self.turned = time.monotonic()
        """When the event loop turned the last time, by the monotonic clock."""
        self._thread = threading.Thread(target=self._run, name="prefect-jobs: runs", daemon=True)

    # -- from the worker's thread

    def start(self) -> None:
        """Start the thread, and wait until it takes runs."""
        self._thread.start()
        if not self._open.wait(_OPEN_SECONDS):
            raise RuntimeError(f"the loop of the runs did not open within {_OPEN_SECONDS:g} s")

    def begin(self, flow_run: FlowRun, *, adopted: bool = False) -> None:
        """Run a flow run that this supervisor has taken."""
        self._do(flow_run.id, partial(self._execute, flow_run, adopted))

    def finish(self, flow_run: FlowRun) -> None:
        """End what is left of a run that is Cancelling and that nobody looks after."""
        self._do(flow_run.id, partial(self._finish_anothers, flow_run))

    def held_until(self, moment: float) -> None:
        """Let the runs report until a moment of the lease's clock, in seconds."""
        self._loop.call_soon_threadsafe(self._gate.open_until, moment)

    def abandon(self) -> None:
        """Leave all runs as they are, for another supervisor: nothing of them is reported from here any more.

        Their thread and what they hold stay until the process ends.
        """
        asyncio.run_coroutine_threadsafe(self._freeze(), self._loop)
        self._frozen.wait(_OPEN_SECONDS)
        # It is meant to stand still.
        self.turned = math.inf

    def close(self) -> None:
        """End the thread; its runs have ended before."""
        self._loop.call_soon_threadsafe(self._left.set)
        self._thread.join(_OPEN_SECONDS)

    def _do(self, run_id: UUID, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def start() -> None:
            task = self._loop.create_task(work(), name=f"prefect-jobs: run {run_id}", context=self._context.copy())
            self._tasks[run_id] = task
            figures.ACTIVE.set(len(self._tasks))
            task.add_done_callback(partial(self._forget, run_id))

        self._loop.call_soon_threadsafe(start)

    # -- in the runs' own thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._loop.create_task(self._serve(), context=self._context))

    async def _freeze(self) -> None:
        """Stop in the middle for ever, as if the process had died: what runs is not even told that it ends."""
        self._gate.shut()
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_SECONDS):
                await self._gate.quiet.wait()
        self._frozen.set()
        threading.Event().wait()

    async def _serve(self) -> None:
        # A worker starts while the API is away, too: nothing is asked of it here.
        settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}
        with temporary_settings(settings):
            async with shared_client(self.owner, self._gate) as self._client, holding(), hearing():
                self._context = copy_context()
                beside = [
                    asyncio.create_task(work, name=f"prefect-jobs: {name}")
                    for name, work in (
                        ("lag of the runs' loop", self._probe()),
                        ("places within limits", renew_places(self._client, self._client.slots)),
                        ("heartbeats of runs", self._heartbeats.beat(self._client)),
                    )
                ]
                for task in beside:
                    task.add_done_callback(_say_broken)
                self._open.set()
                await self._left.wait()
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

    def _forget(self, run_id: UUID, task: asyncio.Task[None]) -> None:
        del self._tasks[run_id]
        self._api.forget(run_id)
        self._heartbeats.end(run_id)
        self._garbage.one_ended(len(self._tasks))
        figures.ACTIVE.set(len(self._tasks))
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("Run %s was left by an error of the worker: %r", run_id, error, exc_info=error)
        self._ended(run_id, error is not None)

    async def _execute(self, flow_run: FlowRun, adopted: bool) -> None:
        figures.STARTED.labels("adopted" if adopted else "new").inc()
        try:
            await self._run_flow(flow_run)
        except JobError as error:
            await self._crash(flow_run, str(error))
        except Exception as error:
            self._stumbles[flow_run.id] += 1
            if self._stumbles[flow_run.id] < _TRIES:
                raise  # It is found among one's own, and begun anew.
            logger.exception("The worker stumbled over run %s %d times, and ends it", flow_run.id, _TRIES)
            with suppress(Exception):
                await end_remains(self._api, flow_run)
            # What an unforeseen error says may hold anything, secrets too.
            await self._crash(
                flow_run,
                f"the worker tried to begin or go on with the run {_TRIES} times, and each time an error of its own "
                f"ended that, the last time a {type(error).__name__}; the log of the worker shows where. Mend that or "
                "start another release of the worker, and start the run again; 'prefect-jobs sweep' removes a "
                "container of it that is left",
            )
        self._stumbles.pop(flow_run.id, None)

    async def _crash(self, flow_run: FlowRun, message: str) -> None:
        crashed: State[Any] = Crashed(message=message)
        await insist(partial(self._api.set_flow_run_state, flow_run.id, crashed), "end a run")
        figures.ENDED.labels(str(crashed.name)).inc()

    @property
    def _api(self) -> RunsClient:
        assert self._client is not None
        return self._client

    async def _run_flow(self, flow_run: FlowRun) -> None:
        """Run the flow of a run to its end.

        Raises:
            JobError: there is no such flow.
        """
        client = self._api
        flow = await self._flows.of(client, flow_run)
        self._heartbeats.begin(flow_run, flow.name)
        STARTED.set(partial(_count_start, flow_run))
        FENCE.set(self._gate.passed)
        # With its deployment the engine starts a thread, an event loop and a websocket for each run.
        client.begin(flow_run)
        handed = flow_run.model_copy(update={"deployment_id": None})
        try:
            ended: Any = await run_flow(flow, flow_run=handed, return_type="state")  # type: ignore[misc]
        except (Abort, Pause) as refused:
            logger.info("Run %s was not begun: %s", flow_run.id, refused)
            with suppress(ObjectNotFound):
                state = (await run_now(client, flow_run.id)).state
                if state is not None and state.is_cancelling():
                    await self._finish(flow_run)
            return
        except ObjectNotFound:
            logger.info("Run %s was deleted", flow_run.id)
            return
        if ended.is_cancelling():
            await self._finish(flow_run)
            return
        figures.ENDED.labels(ended.name).inc()

    async def _finish_anothers(self, flow_run: FlowRun) -> None:
        # Whoever else looks for it finds that it is in hands.
        with suppress(ObjectNotFound):
            whose = partial(self._api.update_flow_run, flow_run.id, infrastructure_pid=self.owner)
            await insist(whose, "say whose a run is")
        await self._finish(flow_run)

    async def _finish(self, flow_run: FlowRun) -> None:
        try:
            how = await end_remains(self._api, flow_run)
        except JobError as error:
            how = f"what may be left of it could not be ended: {error}"
            logger.warning("What is left of the cancelled run %s could not be ended: %s", flow_run.id, error)
        with suppress(ObjectNotFound):
            await end_cancelled(self._api, flow_run.id, how)
        figures.ENDED.labels("Cancelled").inc()

    async def _probe(self) -> None:
        """Measure how late the loop is: whatever blocks it holds up every run."""
        worst, since = 0.0, time.monotonic()
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_PROBE)
            self.turned = time.monotonic()
            lag = self.turned - asked - _PROBE
            if asked - since > 60:
                worst, since = 0.0, asked
            worst = max(worst, lag)
            figures.LOOP_LAG.set(worst)
            self._garbage.time_passed(self.turned, len(self._tasks))
            if lag > _LATE:
                logger.debug("The runs' event loop was blocked for %.3f s", lag)


def _say_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("%s ended by an error of the worker", task.get_name(), exc_info=error)


def _count_start(flow_run: FlowRun, attempt: int) -> None:
    due = flow_run.next_scheduled_start_time or flow_run.expected_start_time
    if attempt == 1 and due is not None:
        figures.SECONDS_TO_START.observe(max(0.0, (datetime.now(UTC) - due).total_seconds()))
