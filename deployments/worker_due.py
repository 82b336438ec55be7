"""Which runs of a work pool are due, as Prefect's API says."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse

from prefect_jobs.deployments.worker_pool import NoQueueError, why_not_found
from prefect_jobs.errors import NotFoundError
from prefect_jobs.model import Model

logger = logging.getLogger("prefect_jobs.worker")

MOST = 200
"""The API gives no more at once."""
ANSWER_SECONDS = 60.0
"""How long a poll may take to be answered, and the first steps of a worker that runs once."""
# More runs than there is room for are read at once, so that not each that ends costs a poll; for so many seconds a run
# of a queue with a higher priority may wait behind them.
_AHEAD, _AHEAD_SECONDS = 32, 1.0


class Wanted(Model):
    """Which runs are taken, by whom, and how many at once."""

    worker: str
    pool: str
    queues: tuple[str, ...] = ()
    """All queues of the pool where it is empty."""
    limit: int | None = None
    prefetch_seconds: float
    """How long before its time a run is asked for."""


class Due:
    """Asks for runs that are due."""

    def __init__(self, client: PrefectClient, wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted
        self._ahead: list[FlowRun] = []
        self._ahead_until = 0.0
        self.has_more = False
        """Whether the API may know of more runs than it gave the last time."""
        self.answer_until = 0.0
        """Until when the API may take to answer what it is asked now, by the monotonic clock."""
        self._absent: tuple[str, ...] = ()

    async def soon(self, room: int) -> list[FlowRun]:
        """What is due soon, as it was read a moment ago or just now; who takes a run takes it off the list."""
        now = asyncio.get_running_loop().time()
        if self._ahead and now < self._ahead_until:
            return self._ahead
        try:
            before = datetime.now(UTC) + timedelta(seconds=self._wanted.prefetch_seconds)
            most = min(MOST, room + _AHEAD)
            self._ahead = await self._there(before, most)
            self.has_more = len(self._ahead) >= most
        except Exception as error:  # Whatever a proxy before the API may say: the next poll comes, and the lease tells.
            logger.debug("Prefect's API could not be asked for runs: %r", error)
            return []
        self._ahead_until = now + _AHEAD_SECONDS
        return self._ahead

    def forget(self) -> None:
        """Ask the API the next time: there is something new."""
        self._ahead_until = 0.0

    async def before(self, moment: datetime, most: int) -> list[FlowRun]:
        """Runs that are due before a time, by the priority of their queues.

        Raises:
            NotFoundError: the pool is not there, or one of its queues.
            httpx.HTTPError, TimeoutError: the API does not answer.
        """
        return await self._ask(moment, most, self._wanted.queues)

    async def _there(self, moment: datetime, most: int) -> list[FlowRun]:
        """As `before`, of the queues that are there; which are not is said once."""
        found: list[FlowRun] = []
        absent: tuple[str, ...] = ()
        there: tuple[str, ...] = ()
        try:
            found = await self.before(moment, most)
        except NoQueueError as error:
            absent, there = error.absent, error.there
            if absent != self._absent:
                logger.warning("%s. The worker goes on looking for it", _sentence(error))
        if self._absent and not absent:
            logger.info("All work queues are there now")
        self._absent = absent
        return await self._ask(moment, most, there) if there else found

    async def _ask(self, moment: datetime, most: int, queues: tuple[str, ...]) -> list[FlowRun]:
        asked: dict[str, Any] = {"scheduled_before": moment.isoformat(), "limit": most}
        if queues:
            asked["work_queue_names"] = list(queues)
        self.answer_until = time.monotonic() + ANSWER_SECONDS
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._client.request(
                    "POST",
                    "/work_pools/{name}/get_scheduled_flow_runs",
                    path_params={"name": self._wanted.pool},
                    json=asked,
                )
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            async with asyncio.timeout(ANSWER_SECONDS):
                if absent := await why_not_found(self._client, self._wanted.pool, queues):
                    raise absent from None
            return []
        finally:
            self.answer_until = 0.0
        return [WorkerFlowRunResponse.model_validate(entry).flow_run for entry in response.json()]


def _sentence(error: NotFoundError) -> str:
    words = str(error)
    return words[0].upper() + words[1:]
