"""Carries the log records of all runs of an event loop to Prefect's API, as many in one request as are there."""

from __future__ import annotations

import asyncio

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prefect_jobs.blocks.sharing import Shared

# Prefect's API refuses batches of more than 4 MB; a batch of one run has at most a third of this.
_MOST_BYTES = 1536 * 1024
_MOST_RECORDS = 1500


class Parcel:
    """The records of one sender, and what became of them."""

    def __init__(self, records: list[LogCreate], weight: int) -> None:
        self.records = records
        self.weight = weight
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Courier:
    """Sends what is there, and while that is on its way collects what comes next."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._waiting: list[Parcel] = []
        self._going: asyncio.Task[None] | None = None

    async def send(self, records: list[LogCreate], weight: int) -> None:
        """Deliver records; ``weight`` is about how many bytes they take.

        Raises:
            httpx.HTTPError: what became of the request that they were in. One that the API refuses is sent once more
                for each sender, so that nobody suffers for another's records.
        """
        parcel = Parcel(records, weight)
        self._waiting.append(parcel)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go(), name="prefect-jobs: log courier")
        await parcel.done

    async def close(self) -> None:
        """Wait until everything is sent."""
        if self._going is not None:
            await asyncio.gather(self._going, return_exceptions=True)

    async def _go(self) -> None:
        # Prefect's client sends again what got no answer, or one of a busy server, although it may be there already.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            # Whoever begins to send in this moment comes along.
            await asyncio.sleep(0)
            await self._send_all()

    async def _send_all(self) -> None:
        while self._waiting:
            parcels = self._load()
            try:
                await self._client.create_logs([record for parcel in parcels for record in parcel.records])
            except httpx.HTTPStatusError as error:
                if len(parcels) == 1 or error.response.status_code >= 500:
                    _tell(parcels, error)
                else:
                    for parcel in parcels:
                        await self._alone(parcel)
            except BaseException as error:
                _tell(parcels, error)
                if not isinstance(error, Exception):
                    raise
            else:
                _tell(parcels, None)

    def _load(self) -> list[Parcel]:
        """As many parcels as one request takes, and at least one."""
        count = weight = records = 0
        for parcel in self._waiting:
            weight, records = weight + parcel.weight, records + len(parcel.records)
            if count and (weight > _MOST_BYTES or records > _MOST_RECORDS):
                break
            count += 1
        loaded, self._waiting = self._waiting[:count], self._waiting[count:]
        return loaded

    async def _alone(self, parcel: Parcel) -> None:
        try:
            await self._client.create_logs(parcel.records)
        except Exception as error:
            _tell([parcel], error)
        else:
            _tell([parcel], None)


def _tell(parcels: list[Parcel], error: BaseException | None) -> None:
    for parcel in parcels:
        if parcel.done.done():
            continue
        if error is None:
            parcel.done.set_result(None)
        else:
            parcel.done.set_exception(error)


COURIERS: Shared[PrefectClient, Courier] = Shared(Courier)
