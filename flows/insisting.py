"""Asking Prefect's API until it answers: a run's container goes on, whatever becomes of the API meanwhile."""

from __future__ import annotations

import logging
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from prefect_jobs.blocks.patience import Patience

_BUSY = (408, 429)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in _BUSY
    return isinstance(error, httpx.TransportError)


_PATIENCE = Patience("Prefect's API", _may_pass, logging.getLogger("prefect_jobs.api"), first=0.5, longest=15.0)
insist = _PATIENCE.insist
"""The API's answer, however long it takes.

Raises:
    httpx.HTTPStatusError: the API answered that it will not, with a status of 400 to 499.
"""


async def run_now(client: PrefectClient, run_id: UUID) -> FlowRun:
    """A run as it is now.

    Raises:
        ObjectNotFound: it was deleted.
    """
    return await insist(lambda: client.read_flow_run(run_id), "read a run")
