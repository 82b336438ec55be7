"""Seconds by which processes on one machine, and its containers, agree how much time has passed."""

from __future__ import annotations

import time


def clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended, as everybody else's does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
