"""Times of log lines, so that each is a place in its log."""

from __future__ import annotations

from datetime import UTC, datetime


class Moments:
    """Gives the lines of one log times that rise, to the microsecond that a `datetime` and Prefect keep.

    Engines write two lines in one microsecond, and their clocks may step back between stdout and stderr. A line gets
    the engine's time, or one microsecond more than the line before it. Read from its start, a log always gets the
    same times, so that the time of a line says exactly where to go on.
    """

    def __init__(self) -> None:
        self._last = 0

    def of(self, nanoseconds: int) -> datetime:
        """The time of the next line, which the engine received so many nanoseconds after 1970."""
        self._last = max(nanoseconds // 1000, self._last + 1)
        seconds, microseconds = divmod(self._last, 10**6)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
