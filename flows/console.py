"""The local log of the process that runs flows: for a person who looks at it, and no place to keep every line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# Prefect's console handler takes a quarter of a millisecond for a line, during which nothing else happens.
_LINES_PER_SECOND = 200


class Room:
    """How many lines a terminal still takes within this second, of all runs of a process together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._shown = 0

    @property
    def second(self) -> int:
        """The second that it is."""
        return int(self._clock())

    def take(self) -> bool:
        """Take the room of a line, if there is any."""
        if self.second != self._second:
            self._second, self._shown = self.second, 0
        self._shown += 1
        return self._shown <= _LINES_PER_SECOND


_TERMINAL = Room()


class Console:
    """Shows lines as long as they come slowly enough for a person, and says how many it left out."""

    def __init__(self, logger: logging.LoggerAdapter[logging.Logger], room: Room = _TERMINAL) -> None:
        self._logger = logger
        self._room = room
        self._second = 0
        self._left_out = 0

    def show(self, level: int, text: str) -> None:
        """Show a line, unless there were too many within this second."""
        if self._room.second != self._second:
            self.finish()
            self._second = self._room.second
        if self._room.take():
            self._log(level, text)
        else:
            self._left_out += 1

    def finish(self) -> None:
        """Say how many lines were left out."""
        if self._left_out:
            self._log(logging.INFO, f"({self._left_out} more lines are in Prefect only)")
            self._left_out = 0

    def _log(self, level: int, text: str) -> None:
        self._logger.log(level, "%s", text, extra={"send_to_api": False})
