"""Log records on their way to Prefect's API: in batches, each record once, no faster than the API takes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort

from prefect_jobs.flows.courier import COURIERS, Courier
from prefect_jobs.flows.insisting import insist

logger = logging.getLogger("prefect_jobs.delivery")

_BATCH_RECORDS = 500
_BATCH_BYTES = 512 * 1024
_LONGEST_WAIT = 0.5
_LAST_SECONDS: float | None = 15.0
_PAGE = 200
# What a record weighs beside its message; Prefect's API refuses batches of more than 4 MB.
_RECORD_BYTES = 300


class Delivery:
    """The records of one logger of one run.

    Records have rising times, so that the latest one that the API holds tells which are delivered, whatever became of
    an earlier supervisor or of an answer on its way.
    """

    def __init__(self, client: PrefectClient, name: str, flow_run_id: UUID, task_run_id: UUID) -> None:
        self._client = client
        self._courier: Courier
        self._name = name
        self._flow_run_id = flow_run_id
        self._task_run_id = task_run_id
        self._batch: list[LogCreate] = []
        self._bytes = 0
        self._unsure = False
        self._going: tuple[asyncio.Future[None], int] | None = None
        self._sending = asyncio.Lock()
        self._something = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Delivery]:
        """Deliver in the background what `put` does not deliver by itself; everything at the end."""
        limit = _LAST_SECONDS
        async with COURIERS.use(self._client) as self._courier:
            background = asyncio.create_task(self._deliver_slowly(), name="prefect-jobs: log delivery")
            try:
                yield self
                limit = None
            finally:
                background.cancel()
                await asyncio.gather(background, return_exceptions=True)
                # Whoever is ended while the API is away does not wait for it for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limit):
                        await self.flush()

    async def latest(self, since: datetime) -> datetime | None:
        """The time of the latest record that the API holds, or None where it has none of that time or later.

        ``since`` spares the API the records of earlier attempts, which may be many.
        """
        chosen = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._flow_run_id]), timestamp=LogFilterTimestamp(after_=since)
        )
        offset = 0
        while True:
            ask = partial(self._client.read_logs, chosen, _PAGE, offset, LogSort.TIMESTAMP_DESC)
            page = await insist(ask, "read a run's log")
            for record in page:
                if record.name == self._name:
                    return record.timestamp
            if len(page) < _PAGE:
                return None
            offset += _PAGE

    async def put(self, level: int, when: datetime, message: str) -> None:
        """Add a record; returns when there is room for the next, so that memory does not grow with the log."""
        self._batch.append(
            LogCreate(
                name=self._name,
                level=level,
                message=message,
                timestamp=when,
                flow_run_id=self._flow_run_id,
                task_run_id=self._task_run_id,
            )
        )
        self._bytes += _weight(message)
        self._something.set()
        if len(self._batch) >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Deliver all records that were added; an API that is away is waited for.

        Whoever is cancelled meanwhile finds the records still there: nothing is taken out before it is delivered.
        """
        async with self._sending:
            self._something.clear()
            while self._batch:
                try:
                    await insist(partial(self._send, _BATCH_RECORDS), "deliver log records")
                except httpx.HTTPStatusError:
                    await self._send_alone()
            self._bytes = 0

    async def _send(self, most: int) -> None:
        if self._going is None:
            if self._unsure and self._batch and (latest := await self.latest(self._batch[0].timestamp)):
                # An answer was lost, not necessarily the records.
                self._batch[:] = [record for record in self._batch if record.timestamp > latest]
            self._unsure = bool(batch := self._batch[:most])
            if not batch:
                return
            weight = sum(_weight(record.message) for record in batch)
            self._going = asyncio.ensure_future(self._courier.send(batch, weight)), len(batch)
        sending, _ = self._going
        # The API carries out a request whose sender has gone: who is cancelled meanwhile waits for its answer, and who
        # comes next for what is still going.
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait([sending], timeout=_LAST_SECONDS)
            raise
        finally:
            self._settle()

    def _settle(self) -> None:
        """Take out what was delivered."""
        assert self._going is not None
        sending, count = self._going
        if not sending.done():
            return
        self._going = None
        if not sending.cancelled() and sending.exception() is None:
            del self._batch[:count]
            self._unsure = False

    async def _send_alone(self) -> None:
        """Deliver the records of a batch that the API refused one by one, and leave out what it really refuses."""
        self._unsure = False
        for record in self._batch[:_BATCH_RECORDS]:
            try:
                await insist(partial(self._send, 1), "deliver a log record")
            except httpx.HTTPStatusError as error:
                self._unsure = False
                self._batch.remove(record)
                logger.error("Prefect's API refused a log record of %s: %s", record.timestamp, error)

    async def _deliver_slowly(self) -> None:
        while True:
            await self._something.wait()
            await asyncio.sleep(_LONGEST_WAIT)
            await self.flush()


def _weight(message: str) -> int:
    """About how many bytes a record takes in a request."""
    return len(message) * 2 + _RECORD_BYTES
