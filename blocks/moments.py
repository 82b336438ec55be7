"""Times of log lines, so that each is a place in its log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Moments:
    """Gives the lines of one log times that rise, to the microsecond that a `datetime` and Prefect keep.

    Engines write two lines in one microsecond, and their clocks may step back between stdout and stderr. A line gets
    the engine's time, or one microsecond more than the line before it. Read from its start, a log always gets the
    same times, so that the time of a line says exactly where to go on.
    """

    def __init__(self) -> None:
        self._last = 0
        self._second, self._second_is = 0, datetime.fromtimestamp(0, UTC)

    def of(self, nanoseconds: int) -> datetime:
        """The time of the next line, which the engine received so many nanoseconds after 1970."""
        self._last = last = max(nanoseconds // 1000, self._last + 1)
        second, microseconds = divmod(last, 10**6)
        if second != self._second:
            self._second, self._second_is = second, datetime.fromtimestamp(second, UTC)
        return self._second_is + timedelta(0, 0, microseconds)
