"""The work pool and queues that a worker is told of: what is not there, and what the worker says of it, once."""

from __future__ import annotations

import logging
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.exceptions import ObjectNotFound

from prefect_jobs.errors import NotFoundError
from prefect_jobs.names import DEFAULT_WORK_POOL

logger = logging.getLogger("prefect_jobs.worker")


class NoQueueError(NotFoundError):
    """Some of the work queues of which runs were asked for are not there."""

    def __init__(self, pool: str, absent: tuple[str, ...], there: tuple[str, ...]) -> None:
        self.absent, self.there = absent, there
        names = ", ".join(map(repr, absent))
        ways = "; ".join(f"prefect work-queue create {name} --pool {pool}" for name in absent)
        super().__init__(f"the work pool {pool!r} has no work queue {names}; misspelt? To make it: {ways}")


async def why_not_found(client: PrefectClient, pool: str, queues: tuple[str, ...]) -> NotFoundError | None:
    """Why the API knows nothing of a pool's runs; None where all is there by now.

    Raises:
        httpx.HTTPError: the API does not answer.
    """
    if await pool_id(client, pool) is None:
        return NotFoundError(
            f"the work pool {pool!r} is not there; misspelt? To make it: prefect-jobs apply --work-pool {pool}"
        )
    chosen = WorkQueueFilter(name=WorkQueueFilterName(any_=list(queues)))
    read = await client.read_work_queues(pool, chosen, limit=len(queues), offset=0) if queues else []
    found = {queue.name for queue in read}
    absent = tuple(name for name in queues if name not in found)
    return NoQueueError(pool, absent, tuple(sorted(found))) if absent else None


async def pool_id(client: PrefectClient, pool: str) -> UUID | None:
    """A pool's id; None where there is none."""
    with suppress(ObjectNotFound):
        return (await client.read_work_pool(pool)).id
    return None


class PoolWatch:
    """Says when a worker makes the pool, and when the pool was deleted under it."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._known: UUID | None = None

    def saw(self, before: UUID | None, after: UUID | None) -> None:
        """The pool's id before the worker made itself known and after it, None where it was not there."""
        now = before or after
        option = "" if self._pool == DEFAULT_WORK_POOL else f" --work-pool {self._pool}"
        if self._known is None and before is None and now is not None:
            logger.warning(
                "There was no work pool %r: the worker made it. No job is sent there yet; misspelt? If not: "
                "prefect-jobs apply%s",
                self._pool,
                option,
            )
        elif self._known is not None and now is not None and now != self._known:
            logger.warning(
                "The work pool %r was deleted, and made anew. Its deployments and waiting runs have none now, and "
                "nobody takes them: prefect-jobs apply%s, and start those runs anew",
                self._pool,
                option,
            )
        self._known = now or self._known
