"""Asking again until there is an answer: what may pass is waited out, however long it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Patience:
    """How somebody is asked again: what of theirs may pass, and how long to wait before each further time."""

    who: str
    may_pass: Callable[[Exception], bool]
    """Whether an error says nothing about what was asked."""
    logger: logging.Logger
    first: float
    """Seconds before the second time; they double."""
    longest: float
    """Seconds between two times at most."""

    async def delays(self) -> AsyncIterator[None]:
        """Comes at once, and then after each wait."""
        delay = self.first
        while True:
            yield
            await asyncio.sleep(delay)
            delay = min(delay * 2, self.longest)

    async def insist(self, ask: Callable[[], Awaitable[T]], what: str) -> T:
        """The answer; it may be an error that does not pass."""
        async for _ in self.delays():
            try:
                return await ask()
            except Exception as error:
                if not self.may_pass(error):
                    raise
                self.logger.warning("%s could not %s (%r); asking again", self.who, what, error)
        raise AssertionError("unreachable")
