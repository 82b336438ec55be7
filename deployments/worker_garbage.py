"""When a worker looks through all of its objects for cycles that nobody needs any more.

While it does nothing else goes on in the process, for some tenths of a second where hundreds of runs are looked after.
Python does it whenever the number of objects has grown by a quarter, so just while many runs begin.
"""

from __future__ import annotations

import gc
import sys
import time

# So few runs are looked through in an instant.
_FEW_RUNS = 40
# An ended run leaves some thirty objects in cycles: many of them may wait for a quiet moment.
_ENDED, _ENDED_AMONG_MANY = 20, 2000
# However few have ended, for a worker that waits leaves some, too.
_SECONDS = 300.0
_NEVER = 1_000_000_000


def keep_what_is_there() -> None:
    """Never look through what was imported again, and through what is old only when `Garbage` says so."""
    gc.collect()
    gc.freeze()
    if sys.version_info < (3, 14):  # Newer ones look in small steps by themselves.
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)


class Garbage:
    """Looks through the objects of all runs now and then when few are at work, or when very many have ended."""

    def __init__(self) -> None:
        self._ended = 0
        self._next = time.monotonic() + _SECONDS

    def one_ended(self, active: int) -> None:
        """A run has ended, and so many are at work now."""
        self._ended += 1
        if self._ended >= (_ENDED if active <= _FEW_RUNS else max(_ENDED_AMONG_MANY, active)):
            self._look()

    def time_passed(self, now: float, active: int) -> None:
        """It is so late by the monotonic clock, and so many are at work; costs nothing until it is time."""
        if now >= self._next and active <= _FEW_RUNS:
            self._look()

    def _look(self) -> None:
        self._ended = 0
        self._next = time.monotonic() + _SECONDS
        gc.collect()
