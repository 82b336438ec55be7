"""When a worker looks through all of its objects for cycles that nobody needs any more.

While it does nothing else goes on in the process, for some tenths of a second where hundreds of runs are looked after.
Python does it whenever the number of objects has grown by a quarter, so just while many runs begin.
"""

from __future__ import annotations

import gc
import sys

# So few runs are looked through in an instant.
_FEW_RUNS = 40
# An ended run leaves some thirty objects in cycles: many of them may wait for a quiet moment.
_ENDED, _ENDED_AMONG_MANY = 20, 2000
_NEVER = 1_000_000_000


def keep_what_is_there() -> None:
    """Never look through what was imported again, and through what is old only when `Garbage` says so."""
    gc.collect()
    gc.freeze()
    if sys.version_info < (3, 14):  # Newer ones look in small steps by themselves.
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)


class Garbage:
    """Looks through the objects of all runs when few are at work, or very many have ended."""

    def __init__(self) -> None:
        self._ended = 0

    def one_ended(self, active: int) -> None:
        """A run has ended, and so many are at work now."""
        self._ended += 1
        if self._ended >= (_ENDED if active <= _FEW_RUNS else max(_ENDED_AMONG_MANY, active)):
            self._ended = 0
            gc.collect()
