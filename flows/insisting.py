"""Asking Prefect's API until it answers: a run's container goes on, whatever becomes of the API meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

T = TypeVar("T")

logger = logging.getLogger("prefect_jobs.api")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 15.0


async def insist(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """The API's answer, however long it takes.

    Raises:
        httpx.HTTPStatusError: the API answered that it will not, with a status of 400 to 499.
    """
    delay = _FIRST_DELAY
    while True:
        try:
            return await ask()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < 500 and error.response.status_code not in (408, 429):
                raise
            problem: Exception = error
        except httpx.TransportError as error:
            problem = error
        logger.warning("Prefect's API could not %s (%r); asking again in %g s", what, problem, delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, _LONGEST_DELAY)
