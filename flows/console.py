"""The local log of the process that runs the flow: for a person who looks at it, and no place to keep every line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# Prefect's console handler takes a quarter of a millisecond for a line, during which nothing else happens.
_LINES_PER_SECOND = 200


class Console:
    """Shows lines as long as they come slowly enough for a person, and says how many it left out."""

    def __init__(
        self, logger: logging.LoggerAdapter[logging.Logger], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._second = 0
        self._shown = self._left_out = 0

    def show(self, level: int, text: str) -> None:
        """Show a line, unless there were too many within this second."""
        second = int(self._clock())
        if second != self._second:
            self.finish()
            self._second, self._shown = second, 0
        if self._shown < _LINES_PER_SECOND:
            self._shown += 1
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
