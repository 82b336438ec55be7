"""The places of runs within the concurrency limits of their deployments: kept while a run goes on, whoever runs it."""

from __future__ import annotations

import asyncio
import logging
import time
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

logger = logging.getLogger("prefect_jobs.worker")

_SECONDS, _RENEW_EVERY = 300.0, 60.0
_GONE = (404, 410)


async def keep_place(client: PrefectClient, flow_run: FlowRun) -> UUID | None:
    """The lease of a run's place, renewed, or that of a place taken anew; None where it has none, or there is none.

    Without one the run goes on all the same, for its container does: then one run too many is there for a while. At its
    end Prefect frees a place all the same, which is another run's: it counts places, and not whose they are.
    """
    lease = None if flow_run.state is None else flow_run.state.state_details.deployment_concurrency_lease_id
    if lease is None or await _renew(client, lease):
        return lease
    try:
        answer = await client.increment_concurrency_slots_with_lease(
            [f"deployment:{flow_run.deployment_id}"], 1, "concurrency", _SECONDS
        )
    except (httpx.HTTPStatusError, ObjectNotFound) as error:
        taken = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.LOCKED
        why = "others have them all" if taken else repr(error)
        logger.warning("Run %s goes on without a place within its limit: %s", flow_run.id, why)
        return None
    return UUID(answer.json()["lease_id"])


async def renew_places(client: PrefectClient, places: dict[UUID, UUID]) -> None:
    """Renew the lease of each run's place, for ever; Prefect frees the place of whoever does not."""
    renewed: dict[UUID, float] = {}
    while True:
        await asyncio.sleep(1.0)
        now, leases = time.monotonic(), set(places.values())
        renewed = {lease: at for lease, at in renewed.items() if lease in leases}
        for run_id, lease in list(places.items()):
            # It may have ended while another place was renewed, or now: then Prefect has freed its own.
            if places.get(run_id) != lease or now - renewed.get(lease, -_RENEW_EVERY) < _RENEW_EVERY:
                continue
            try:
                if not await _renew(client, lease) and places.get(run_id) == lease:
                    places.pop(run_id, None)
                    logger.warning("Run %s has lost its place within its limit, and goes on", run_id)
                renewed[lease] = now
            except Exception as error:
                logger.debug("The place of run %s could not be renewed; asking again: %r", run_id, error)


async def _renew(client: PrefectClient, lease: UUID) -> bool:
    """Renew a lease; whether it was there."""
    try:
        await client.renew_concurrency_lease(lease, _SECONDS)
    except ObjectNotFound:
        return False
    except httpx.HTTPStatusError as error:
        if error.response.status_code in _GONE:
            return False
        raise
    return True
