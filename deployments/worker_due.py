"""Which runs of a work pool are due, as Prefect's API says."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import ObjectNotFound

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
        self.answer_until = 0.0
        """Until when the API may take to answer what it is asked now, by the monotonic clock."""

    async def soon(self, room: int) -> list[FlowRun]:
        """What is due soon, as it was read a moment ago or just now; who takes a run takes it off the list."""
        now = asyncio.get_running_loop().time()
        if self._ahead and now < self._ahead_until:
            return self._ahead
        try:
            before = datetime.now(UTC) + timedelta(seconds=self._wanted.prefetch_seconds)
            self._ahead = await self.before(before, min(MOST, room + _AHEAD))
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
            httpx.HTTPError, TimeoutError: the API does not answer.
        """
        asked: dict[str, Any] = {"scheduled_before": moment.isoformat(), "limit": most}
        if self._wanted.queues:
            asked["work_queue_names"] = list(self._wanted.queues)
        self.answer_until = time.monotonic() + ANSWER_SECONDS
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._client.request(
                    "POST",
                    "/work_pools/{name}/get_scheduled_flow_runs",
                    path_params={"name": self._wanted.pool},
                    json=asked,
                )
        except ObjectNotFound:
            return []
        finally:
            self.answer_until = 0.0
        return [WorkerFlowRunResponse.model_validate(entry).flow_run for entry in response.json()]
