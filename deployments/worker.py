"""The worker type ``prefect-jobs``: runs the flows of jobs inside one process, hundreds at a time.

    prefect worker start --pool jobs --type prefect-jobs

It takes runs from its work pool as every worker of Prefect does (queues, priorities, limits, prefetch), and hears of
new ones by events. What a stock worker does in a process for each run happens in one thread of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import Abort, ObjectNotFound
from prefect.logging import get_logger
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from prefect_jobs.deployments.worker_adoption import taken_by
from prefect_jobs.deployments.worker_supervisor import OnStop, Supervisor, handed_back
from prefect_jobs.errors import TemplateError

logger = logging.getLogger("prefect_jobs.worker")

ON_STOP = "PREFECT_JOBS_ON_STOP"
# Between two polls, however many runs are made or end.
_POLL_PAUSE = 0.05
# More runs than there is room for are read at once, so that not each that ends costs a poll; for so many seconds a run
# of a queue with a higher priority may wait behind them.
_AHEAD, _AHEAD_SECONDS = 32, 1.0
_EVENTS_PAUSE = 2.0
# The API gives no more at once.
_MOST = 200
# Claims on their way to the API at once.
_CLAIMS = 8
_HAND_BACK_SECONDS = 15.0


class Configuration(BaseJobConfiguration):
    """What the base job template of a pool sets for a run: nothing but what every worker has."""


class Variables(BaseVariables):
    """The variables of the base job template."""


class Result(BaseWorkerResult):
    """How a run ended, where Prefect asks the worker for it."""


class JobsWorker(BaseWorker[Configuration, Variables, Result]):
    """Takes the runs of a work pool and looks after them in this process."""

    type = "prefect-jobs"
    job_configuration = Configuration
    job_configuration_variables = Variables
    _description = "Run container jobs inside one process, hundreds at a time. The image needs no Prefect in it."
    _display_name = "prefect-jobs"

    def __init__(self, work_pool_name: str, *args: Any, on_stop: OnStop | None = None, **options: Any) -> None:
        super().__init__(work_pool_name, *args, **options)
        self._on_stop = on_stop or _on_stop()
        self._supervisor: Supervisor | None = None
        self._stopping = False
        self._beside: list[asyncio.Task[None]] = []
        self._claims: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Semaphore(_CLAIMS)
        self._wake = asyncio.Event()
        self._polling = asyncio.Lock()
        self._full = False
        self._ahead: list[FlowRun] = []
        self._ahead_until = 0.0
        self._waiting: dict[UUID, asyncio.TimerHandle] = {}

    async def start(
        self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print
    ) -> None:
        """Take runs until this process is told to stop (SIGTERM, SIGINT); told once more, leave them as they are."""
        _let_speak()
        with _told(self._tell):
            await super().start(run_once, with_healthcheck, printer)

    def _tell(self, main: asyncio.Task[Any]) -> None:
        self._stopping = True
        main.cancel()

    async def setup(self) -> None:
        """As every worker's, and begin to look after runs."""
        await super().setup()
        self._supervisor = Supervisor(self._work_pool_name, self.name, self._has_room)
        self._supervisor.open()
        self._beside = [
            asyncio.create_task(self._poll_when_woken(), name="prefect-jobs: polls"),
            asyncio.create_task(self._hear_of_runs(), name="prefect-jobs: events of new runs"),
        ]

    async def teardown(self, *exc_info: Any) -> None:
        """Take no more runs, hand back what was not begun, and let go of the others as was asked."""
        self._stopping = True
        for handle in self._waiting.values():
            handle.cancel()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        try:
            if self._claims:
                await asyncio.wait(self._claims, timeout=_HAND_BACK_SECONDS)
            if self._supervisor is not None:
                await self._supervisor.stop(self._on_stop, self.client)
        finally:
            await super().teardown(*exc_info)

    async def run(
        self, flow_run: FlowRun, configuration: Configuration, task_status: anyio.abc.TaskStatus[int] | None = None
    ) -> Result:
        """Never called: this worker does not submit runs, it takes them."""
        raise TemplateError("a worker of type prefect-jobs runs deployments of jobs only; see prefect-jobs apply")

    # -- taking runs

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what is due, as far as the limit allows; what is due soon is taken when its time has come."""
        self._last_polled_time = datetime.now(UTC)
        supervisor = self._supervisor
        if not self._has_successfully_synced or supervisor is None or not supervisor.lease.is_held or self._stopping:
            return []
        async with self._polling:
            room = _MOST if self._limit is None else min(_MOST, self._limit - len(supervisor.mine))
            taken: list[FlowRun] = []
            if room > 0 and await self._know_due(min(_MOST, room + _AHEAD)):
                while self._ahead and len(taken) < room:
                    flow_run = self._ahead.pop(0)
                    if self._take(supervisor, flow_run):
                        taken.append(flow_run)
            self._full = len(taken) >= room
        if len(taken) == _MOST:
            # There may be more.
            self._wake.set()
        return taken

    async def sync_with_backend(self) -> None:
        """As every worker's; an API that is away is waited for."""
        try:
            await super().sync_with_backend()
        except (httpx.HTTPError, TimeoutError) as error:
            if not self._has_successfully_synced and not self.is_setup:
                raise
            logger.debug("The worker's heartbeat did not arrive: %r", error)

    async def _know_due(self, most: int) -> bool:
        """Know what is due soon: what was read a moment ago, or what the API says now; whether it answered."""
        now = asyncio.get_running_loop().time()
        if self._ahead and now < self._ahead_until:
            return True
        try:
            self._ahead = await self._due_soon(most)
        except Exception as error:  # Whatever a proxy before the API may say: the next poll comes, and the lease tells.
            logger.debug("Prefect's API could not be asked for runs: %r", error)
            return False
        self._ahead_until = now + _AHEAD_SECONDS
        return True

    async def _due_soon(self, room: int) -> list[FlowRun]:
        """Runs that are due within the prefetch time, by the priority of their queues."""
        before = datetime.now(UTC) + timedelta(seconds=self._prefetch_seconds)
        asked: dict[str, Any] = {"scheduled_before": before.isoformat(), "limit": room}
        if self._work_queues:
            asked["work_queue_names"] = list(self._work_queues)
        try:
            response = await self.client.request(
                "POST",
                "/work_pools/{name}/get_scheduled_flow_runs",
                path_params={"name": self._work_pool_name},
                json=asked,
            )
        except ObjectNotFound:
            return []
        return [WorkerFlowRunResponse.model_validate(entry).flow_run for entry in response.json()]

    def _take(self, supervisor: Supervisor, flow_run: FlowRun) -> bool:
        """Take a run that is due; whether it was."""
        if flow_run.id in supervisor.mine:
            return False
        due = flow_run.next_scheduled_start_time
        if due is not None and (early := due.timestamp() - time.time()) > 0:
            if flow_run.id not in self._waiting:
                self._waiting[flow_run.id] = asyncio.get_running_loop().call_later(early, self._due, flow_run.id)
            return False
        supervisor.mine.add(flow_run.id)
        task = asyncio.create_task(self._claim(supervisor, flow_run), name=f"prefect-jobs: claim {flow_run.id}")
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)
        return True

    def _has_room(self) -> None:
        if self._full:
            self._wake.set()

    def _due(self, run_id: UUID) -> None:
        self._waiting.pop(run_id, None)
        self._poll_anew()

    def _poll_anew(self) -> None:
        self._ahead_until = 0.0
        self._wake.set()

    async def _claim(self, supervisor: Supervisor, flow_run: FlowRun) -> None:
        """Take a run, if no other worker did and its limits allow it, and begin it."""
        begun, lease = False, supervisor.lease
        try:
            async with self._claiming:
                if not self._stopping:
                    state = await propose_state(self.client, taken_by(lease.id, self.name), flow_run.id)
                    if state.is_pending() and self._stopping:
                        await self.client.set_flow_run_state(flow_run.id, handed_back())
                    elif state.is_pending():
                        begun = supervisor.begin(flow_run.model_copy(update={"state": state}), lease)
        except (Abort, ObjectNotFound) as refused:
            logger.debug("Run %s was not taken: %s", flow_run.id, refused)
        except Exception as error:
            logger.warning("Run %s could not be taken, and is tried again: %r", flow_run.id, error)
        finally:
            # In a new life, whatever is its own it has taken anew.
            if not begun and lease is supervisor.lease:
                supervisor.mine.discard(flow_run.id)

    # -- hearing of runs

    async def _poll_when_woken(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.get_and_submit_flow_runs()
            await asyncio.sleep(_POLL_PAUSE)

    async def _hear_of_runs(self) -> None:
        """Poll as soon as a run of any pool becomes due."""
        chosen = EventFilter(event=EventNameFilter(name=["prefect.flow-run.Scheduled"]))
        while True:
            with contextlib.suppress(Exception):
                async with get_events_subscriber(filter=chosen, reconnection_attempts=0) as events:
                    self._wake.set()
                    async for event in events:
                        if any(related.id.endswith(str(self.work_pool.id)) for related in event.related):
                            self._poll_anew()
            await asyncio.sleep(_EVENTS_PAUSE)


def _let_speak() -> None:
    """Show what the worker says as Prefect's own messages are shown; a level that somebody has set stays."""
    if logger.level == logging.NOTSET:
        logger.setLevel(get_logger().getEffectiveLevel())


def _on_stop() -> OnStop:
    """What the environment says of stopping.

    Raises:
        TemplateError: it says something else.
    """
    said = os.environ.get(ON_STOP) or OnStop.DETACH
    try:
        return OnStop(said)
    except ValueError:
        raise TemplateError(f"{ON_STOP} is {said!r}: expected {', '.join(OnStop)}") from None


@contextmanager
def _told(act: Callable[[asyncio.Task[Any]], None]) -> Iterator[None]:
    """Act when this process is told to end; Prefect's command line would kill it when it is told a second time."""
    main, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert main is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            loop.add_signal_handler(number, act, main)
    except (RuntimeError, ValueError):  # Not in the main thread: whoever runs it there tells it otherwise.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
