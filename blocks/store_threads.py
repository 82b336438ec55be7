"""Blocking calls of a store, in threads: bounded, made again when they fail in passing, ended when cancelled."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.store_errors import Meaning, meaning_of, told, words_of
from prefect_jobs.errors import JobError, StoreUnavailable

T = TypeVar("T")
Item = TypeVar("Item")

logger = logging.getLogger("prefect_jobs.store")

LARGE_AT_ONCE = 4
"""Larger files that are transferred at the same time: each takes some blocks of memory."""
_FIRST, _LONGEST = 0.5, 5.0
"""Seconds before a call is made again: they double."""
_TOLD_EACH = 10.0
"""Seconds between two lines about a store that does not answer."""
_ENDS_WITHIN = 60.0
"""Seconds that a cancelled call may still take; the clients' own timeouts are shorter."""


class Threads:
    """Where the calls of one store run, and how long it is waited for."""

    def __init__(self, label: str, at_once: int, patience: float, secrets: list[str]) -> None:
        self.label, self._patience, self._secrets = label, patience, secrets
        self._small = ThreadPoolExecutor(at_once, thread_name_prefix="prefect-jobs store")
        # Of their own, so that nothing waits behind them, and few threads keep what they took of memory.
        self._large = ThreadPoolExecutor(min(LARGE_AT_ONCE, at_once), thread_name_prefix="prefect-jobs store, large")
        self._told = 0.0

    async def ask(
        self, what: str, call: Callable[[threading.Event], T], tell: Tell | None = None, *, large: bool = False
    ) -> T:
        """What a call gives; it is made again while its errors pass, for as long as the store's patience lasts.

        Raises:
            StoreError: it failed for good; ``what`` says what was tried.
            StoreUnavailable: it failed in passing, until the patience ran out.
        """
        delay, failing_since = _FIRST, 0.0
        while True:
            try:
                return await self._run(self._large if large else self._small, call)
            except JobError:
                raise
            except Exception as error:
                meaning, words = meaning_of(error), words_of(error, self._secrets)
                if meaning is not Meaning.PASSES:
                    problem = told(self.label, what, error, meaning, self._secrets)
                    logger.debug("%s", words, exc_info=error if not self._secrets else None)
                    break
                failing_since = failing_since or time.monotonic()
                left = self._patience - (time.monotonic() - failing_since)
                if left <= 0:
                    problem = StoreUnavailable(
                        f"{self.label} could not {what}: {words}; it was asked again for {self._patience:.0f} s. See "
                        "whether it runs and can be reached, or raise the block's patience"
                    )
                    break
                self._complain(words, left, tell or logger.warning)
            # Not all at the same moment, or a store that is too busy stays so.
            await asyncio.sleep(min(delay * random.uniform(0.5, 1.0), left))  # noqa: S311
            delay = min(delay * 2, _LONGEST)
        # Outside of the handler: the client's own error may hold what nobody should read.
        raise problem

    def _complain(self, words: str, left: float, tell: Tell) -> None:
        if time.monotonic() - self._told > _TOLD_EACH:
            self._told = time.monotonic()
            tell(f"{self.label} does not answer ({words}); asking again for up to {left:.0f} s")

    async def _run(self, pool: ThreadPoolExecutor, call: Callable[[threading.Event], T]) -> T:
        stop = threading.Event()
        job = pool.submit(call, stop)
        result = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            # What goes on here would write into what the next attempt uploads.
            stop.set()
            if not job.cancel():
                _, pending = await asyncio.wait([result], timeout=_ENDS_WITHIN)
                if pending:
                    logger.warning("%s: a cancelled transfer has not ended after %.0f s", self.label, _ENDS_WITHIN)
                elif not result.cancelled():
                    result.exception()
            raise

    def close(self) -> None:
        """Let the threads end."""
        for pool in (self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)


async def each(*kinds: tuple[Iterable[Item], int, Callable[[Item], Awaitable[None]]]) -> None:
    """Do something with every item, so many at once of each kind; the first error ends all of it."""

    async def work(items: Iterable[Item], do: Callable[[Item], Awaitable[None]]) -> None:
        for item in items:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for items, at_once, do in kinds:
                waiting = iter(items)
                for _ in range(at_once):
                    group.create_task(work(waiting, do))
    except BaseExceptionGroup as errors:
        error: BaseException = errors
    else:
        return
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error
