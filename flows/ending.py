"""Ending a cancelled run whose supervisor is gone: its containers are stopped and removed by whoever finds them."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.exceptions import ObjectNotFound

from prefect_jobs.blocks.engine import Container
from prefect_jobs.blocks.loading import load_infrastructure, load_store
from prefect_jobs.blocks.store_access import access_to
from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import JobError
from prefect_jobs.flows.cancellation import NOTHING_LEFT
from prefect_jobs.flows.children import CHILDREN_SECONDS, cancel_children, runs_left, why_cancelled
from prefect_jobs.flows.delivery import Delivery
from prefect_jobs.flows.ends import ends
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.log import RunLog, logger_name
from prefect_jobs.flows.mask import Mask
from prefect_jobs.flows.pipeline import clean_up
from prefect_jobs.flows.secrets import read_secret
from prefect_jobs.flows.states import says_cancelled
from prefect_jobs.names import PIPELINE
from prefect_jobs.request import Request, container_spec, infrastructure_of

_ENGINE_SECONDS, _LINES_SECONDS = 60.0, 15.0
logger = logging.getLogger("prefect_jobs.ending")


async def end_remains(client: PrefectClient, flow_run: FlowRun) -> str:
    """End what is left of a run that nobody looks after, containers or the runs that it has started; that in words.

    Of a pipeline that was cancelled, the steps that always run are run.

    Raises:
        JobError: its template cannot be read, or its infrastructure does not answer.
    """
    if PIPELINE in flow_run.parameters:
        return await _end_pipeline(client, flow_run)
    await Remains(flow_run).end(client)
    return NOTHING_LEFT


async def _end_pipeline(client: PrefectClient, flow_run: FlowRun) -> str:
    async with ends() as ended:
        try:
            now = await run_now(client, flow_run.id)
            if says_cancelled(now.state) and now.run_count:
                return await clean_up(client, now, ended)
        except (JobError, ObjectNotFound) as error:
            logger.warning("What %s always runs could not be run: %s", flow_run.name, error)
        left = await cancel_children(client, flow_run.id, why_cancelled(flow_run), CHILDREN_SECONDS, ended)
        return runs_left(left)


class Remains:
    """What may be left of a run, where its request says that it ran.

    Raises:
        JobError: its template or its request cannot be read.
    """

    def __init__(self, flow_run: FlowRun) -> None:
        parameters = dict(flow_run.parameters)
        deployed = DeployedJob.parse(parameters.pop("job", None), flow_run.deployment_version)
        self.job = deployed.template
        request = Request.parse(self.job, {name: value for name, value in parameters.items() if value is not None})
        self.infrastructure = infrastructure_of(self.job, request.overrides)
        self._spec = container_spec(deployed, request)
        self._run_id = flow_run.id
        self._is_cancelled = says_cancelled(flow_run.state)

    @property
    def grace_seconds(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return self._spec.grace_seconds

    async def end(self, client: PrefectClient, grace_seconds: float | None = None, attempt: int | None = None) -> int:
        """Stop and remove the run's containers, their last lines kept; how many there were.

        They have ``grace_seconds``, or the job's grace period. Only that of an ``attempt`` where one is given: a later
        one may be somebody else's already.

        Raises:
            JobError: there is no such infrastructure, or it does not answer; the message says which and why.
        """
        infrastructure = await load_infrastructure(self.infrastructure)
        async with infrastructure.engine() as engine:
            async with asyncio.timeout(_ENGINE_SECONDS):
                there = [
                    found
                    for found in await engine.containers()
                    if found.run_id == self._run_id and not found.is_kept and attempt in (None, found.attempt)
                ]
            for found in there:
                container = engine.container(found.identity)
                await container.stop(self.grace_seconds if grace_seconds is None else grace_seconds)
                try:
                    async with asyncio.timeout(_LINES_SECONDS):
                        await self._last_lines(client, container, found.attempt)
                except Exception as error:  # A secret that is gone cannot be masked; the API may be away.
                    logger.warning("The last lines of %s are lost: %r", container.place, error)
                await container.remove()
            if attempt is None or self._is_cancelled:
                await engine.release(self._run_id)
        return len(there)

    async def _last_lines(self, client: PrefectClient, container: Container, attempt: int) -> None:
        mask = Mask(await self._secrets())
        delivery = Delivery(client, logger_name(attempt), self._run_id, await _last_task_run(client, self._run_id))
        quiet: logging.LoggerAdapter[Any] = logging.LoggerAdapter(logger, {})
        log = RunLog(delivery, quiet, self.job.logging, mask, taken_up=True)
        async with delivery.open():
            await log.follow(container)
            await log.finish()

    async def _secrets(self) -> list[str]:
        """What its container was given and nobody may see.

        Raises:
            NotFoundError: a block that holds some of it is gone.
        """
        values = [await read_secret(self.job, name, block) for name, block in self._spec.secrets.items()]
        if self.job.state is not None and self.job.state.credentials:
            store = await insist(partial(load_store, self.job.state.block), "read a store's block")
            values += access_to(store).secrets.values()
        return values


async def _last_task_run(client: PrefectClient, run_id: UUID) -> UUID:
    """The task run of the last attempt; the run itself where it has none."""
    ask = partial(
        client.read_task_runs,
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
        sort=TaskRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    return next((task_run.id for task_run in await insist(ask, "read a run's task runs")), run_id)
