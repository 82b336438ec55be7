"""The worker type ``prefect-jobs``: runs the flows of jobs inside one process, hundreds at a time.

    prefect worker start --pool jobs --type prefect-jobs

It takes runs from its work pool as every worker of Prefect does (queues, priorities, limits, prefetch), and hears of
new ones by events. What a stock worker does in a process for each run happens in one thread of this one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.logging import get_logger
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from prefect_jobs.deployments.work_pool import base_job_template
from prefect_jobs.deployments.worker_due import Wanted
from prefect_jobs.deployments.worker_garbage import keep_what_is_there
from prefect_jobs.deployments.worker_pool import PoolWatch, pool_id
from prefect_jobs.deployments.worker_ports import check_ports
from prefect_jobs.deployments.worker_signals import told
from prefect_jobs.deployments.worker_supervisor import OnStop, Supervisor
from prefect_jobs.deployments.worker_taking import Taking, no_answer
from prefect_jobs.errors import TemplateError
from prefect_jobs.names import WORKER_TYPE

logger = logging.getLogger("prefect_jobs.worker")

ON_STOP = "PREFECT_JOBS_ON_STOP"
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
        self._taking: Taking | None = None
        self._pool_watch = PoolWatch(work_pool_name)
        self._stopping = False
        self._once = False

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """What a pool of this worker is made with."""
        return base_job_template()

    async def start(
        self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print
    ) -> None:
        """Take runs until this process is told to stop (SIGTERM, SIGINT); told once more, leave them as they are.

        With ``run_once``, take what is due and what workers that are gone have left, and end when it has ended.

        Raises:
            InfrastructureError: a port that it is to serve is taken.
        """
        check_ports(health=with_healthcheck)
        self._once = run_once
        _let_speak()
        with told(self._tell):
            await super().start(run_once, with_healthcheck, printer)

    def _tell(self, main: asyncio.Task[Any]) -> None:
        self._stopping = True
        if self._taking is not None:
            self._taking.stop()
        main.cancel()

    async def setup(self) -> None:
        """As every worker's, and begin to look after runs."""
        await super().setup()
        self._supervisor = Supervisor(self._work_pool_name, self.name, self._one_ended)
        self._taking = Taking(self.client, self._supervisor, self._wanted())
        self._supervisor.open()
        if self._once:
            return
        keep_what_is_there()
        self._taking.open()

    def _wanted(self) -> Wanted:
        return Wanted(
            pool=self._work_pool_name,
            queues=tuple(sorted(self._work_queues)),
            worker=self.name,
            limit=self._limit,
            prefetch_seconds=self._prefetch_seconds,
        )

    def _one_ended(self) -> None:
        if self._taking is not None:
            self._taking.has_room()

    async def teardown(self, *exc_info: Any) -> None:
        """Take no more runs, hand back what was not begun, and let go of the others as was asked."""
        on_stop = OnStop.WAIT if self._once and not self._stopping else self._on_stop
        self._stopping = True
        try:
            if self._taking is not None:
                await self._taking.close()
        except asyncio.CancelledError:  # Told once more.
            on_stop = OnStop.DETACH
            raise
        finally:
            try:
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
        if polls_no_more or (self._taking is not None and time.monotonic() < self._taking.due.answer_until):
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

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what is due."""
        self._last_polled_time = datetime.now(UTC)
        taking = self._taking
        if taking is None or not self._has_successfully_synced:
            if self._once:
                raise no_answer(self._work_pool_name, TimeoutError("the worker could not make itself known"))
            return []
        return await (taking.take_what_is_due() if self._once else taking.poll())

    async def sync_with_backend(self) -> None:
        """As every worker's; an API that is away is waited for."""
        try:
            before = await pool_id(self.client, self._work_pool_name)
            await super().sync_with_backend()
            self._pool_watch.saw(before, None if self._work_pool is None else self._work_pool.id)
        except (httpx.HTTPError, TimeoutError) as error:
            if not self._has_successfully_synced and not self.is_setup:
                raise
            logger.debug("The worker's heartbeat did not arrive: %r", error)


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
