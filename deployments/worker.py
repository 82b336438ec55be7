"""The worker type ``prefect-jobs``: runs the flows of jobs inside one process, hundreds at a time.

    prefect worker start --pool jobs --type prefect-jobs

It takes runs from its work pool as every worker of Prefect does (queues, priorities, limits, prefetch), and hears of
new ones by events. What a stock worker does in a process for each run happens in one thread of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
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

from prefect_jobs.deployments.work_pool import base_job_template
from prefect_jobs.deployments.worker_adoption import taken_by
from prefect_jobs.deployments.worker_supervisor import OnStop, Supervisor, handed_back
from prefect_jobs.errors import InfrastructureError, TemplateError
from prefect_jobs.names import WORKER_TYPE

logger = logging.getLogger("prefect_jobs.worker")

ON_STOP = "PREFECT_JOBS_ON_STOP"
# Between two polls, however many runs are made or end.
_POLL_PAUSE = 0.05
# More runs than there is room for are read at once, so that not each that ends costs a poll; for so many seconds a run
# of a queue with a higher priority may wait behind them.
_AHEAD, _AHEAD_SECONDS = 32, 1.0
_REFUSED_PAUSE = 1.0
_EVENTS_PAUSE = 2.0
# The API gives no more at once.
_MOST = 200
# Claims on their way to the API at once.
_CLAIMS = 8
_HAND_BACK_SECONDS = 15.0
# How long a poll may take to be answered, and the first steps of a worker that runs once.
_ANSWER_SECONDS = 60.0
# A loop of runs that does not turn for so long never will.
_HUNG_SECONDS = 30.0


class JobsWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Takes the runs of a work pool and looks after them in this process."""

    type = WORKER_TYPE
    _description = "Run container jobs inside one process, hundreds at a time. The image needs no Prefect in it."
    _display_name = "prefect-jobs"

    def __init__(self, work_pool_name: str, *args: Any, on_stop: OnStop | None = None, **options: Any) -> None:
        super().__init__(work_pool_name, *args, **options)
        self._on_stop = on_stop or _on_stop()
        self._supervisor: Supervisor | None = None
        self._stopping = False
        self._once = False
        self._answer_due = 0.0
        self._beside: list[asyncio.Task[None]] = []
        self._claims: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Semaphore(_CLAIMS)
        self._wake = asyncio.Event()
        self._polling = asyncio.Lock()
        self._full = False
        self._ahead: list[FlowRun] = []
        self._ahead_until = 0.0
        self._waiting: dict[UUID, asyncio.TimerHandle] = {}

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """What a pool of this worker is made with."""
        return base_job_template()

    async def start(
        self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print
    ) -> None:
        """Take runs until this process is told to stop (SIGTERM, SIGINT); told once more, leave them as they are.

        With ``run_once``, take what is due and what workers that are gone have left, and end when it has ended.
        """
        self._once = run_once
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
        if self._once:
            return
        # What was imported stays: a look through all of it would hold up every run for some tenths of a second.
        gc.collect()
        gc.freeze()
        self._beside = [
            asyncio.create_task(self._poll_when_woken(), name="prefect-jobs: polls"),
            asyncio.create_task(self._hear_of_runs(), name="prefect-jobs: events of new runs"),
        ]

    async def teardown(self, *exc_info: Any) -> None:
        """Take no more runs, hand back what was not begun, and let go of the others as was asked."""
        on_stop = OnStop.WAIT if self._once and not self._stopping else self._on_stop
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
                await self._supervisor.stop(on_stop, self.client)
        finally:
            await super().teardown(*exc_info)

    def is_worker_still_polling(self, query_interval_seconds: float) -> bool:
        """Whether this worker is sound; False where a restart would help, so not while only Prefect's API is away."""
        supervisor = self._supervisor
        if supervisor is not None and (silent := supervisor.silent_seconds) > _HUNG_SECONDS:
            logger.error("The event loop of the runs has not turned for %.0f s: restart this worker", silent)
            return False
        polls_no_more = self._once or self._stopping
        if polls_no_more or time.monotonic() < self._answer_due:
            return True
        return super().is_worker_still_polling(query_interval_seconds)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> BaseWorkerResult:
        """Never called: this worker does not submit runs, it takes them."""
        raise TemplateError("a worker of type prefect-jobs runs deployments of jobs only; see prefect-jobs apply")

    # -- taking runs

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what is due, as far as the limit allows; what is due soon is taken when its time has come."""
        self._last_polled_time = datetime.now(UTC)
        if self._once:
            return await self._run_what_is_due()
        supervisor = self._supervisor
        if not self._has_successfully_synced or supervisor is None or not supervisor.lease.is_held or self._stopping:
            return []
        async with self._polling:
            room = self._room(supervisor)
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

    def _room(self, supervisor: Supervisor) -> int:
        """How many runs may be taken now."""
        return _MOST if self._limit is None else min(_MOST, self._limit - len(supervisor.mine))

    async def _run_what_is_due(self) -> list[FlowRun]:
        """Take all that is due now, each once, and wait until it has ended.

        Raises:
            InfrastructureError: Prefect's API does not answer.
        """
        supervisor, now = self._supervisor, datetime.now(UTC)
        assert supervisor is not None
        taken: dict[UUID, FlowRun] = {}
        try:
            if not self._has_successfully_synced:
                raise TimeoutError("the worker could not make itself known")
            async with asyncio.timeout(_ANSWER_SECONDS):
                await supervisor.held.wait()
                await supervisor.looked.wait()
            while True:
                while self._room(supervisor) <= 0:
                    await supervisor.one_ended()
                found = await self._scheduled(now, self._room(supervisor))
                fresh = {run.id: run for run in found if run.id not in taken and self._take(supervisor, run)}
                if not fresh:
                    break
                taken |= fresh
                await asyncio.wait(self._claims)
        except (httpx.HTTPError, TimeoutError) as error:
            raise InfrastructureError(
                f"the work pool {self._work_pool_name!r} could not be asked for runs: Prefect's API does not answer "
                f"({error!r}); start the worker again when it does"
            ) from error
        await supervisor.drained()
        return list(taken.values())

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
            before = datetime.now(UTC) + timedelta(seconds=self._prefetch_seconds)
            self._ahead = await self._scheduled(before, most)
        except Exception as error:  # Whatever a proxy before the API may say: the next poll comes, and the lease tells.
            logger.debug("Prefect's API could not be asked for runs: %r", error)
            return False
        self._ahead_until = now + _AHEAD_SECONDS
        return True

    async def _scheduled(self, before: datetime, most: int) -> list[FlowRun]:
        """Runs that are due before a time, by the priority of their queues."""
        asked: dict[str, Any] = {"scheduled_before": before.isoformat(), "limit": most}
        if self._work_queues:
            asked["work_queue_names"] = list(self._work_queues)
        self._answer_due = time.monotonic() + _ANSWER_SECONDS
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await self.client.request(
                    "POST",
                    "/work_pools/{name}/get_scheduled_flow_runs",
                    path_params={"name": self._work_pool_name},
                    json=asked,
                )
        except ObjectNotFound:
            return []
        finally:
            self._answer_due = 0.0
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
            # It may have been taken all the same: then it is found among one's own.
            supervisor.look_through_all()
        finally:
            # In a new life, whatever is its own it has taken anew.
            if not begun and lease is supervisor.lease:
                supervisor.mine.discard(flow_run.id)
            if not begun:
                # There is room again; not at once, for the same run may be refused each time.
                asyncio.get_running_loop().call_later(_REFUSED_PAUSE, self._has_room)

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
