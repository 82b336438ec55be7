"""A container's lines on their way to the run's log: with their own time, without secrets."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from prefect_jobs.blocks.engine import Container, LogLine, Stream
from prefect_jobs.job import Logging

_LEVELS: dict[Stream, int] = {"stdout": logging.INFO, "stderr": logging.WARNING}
_TAIL_LINES = 10
_TAIL_WIDTH = 500
_MASK = "***"
_SHORTEST_SECRET = 3


class Mask:
    """Hides secret values in whatever is shown."""

    def __init__(self, values: Iterable[str]) -> None:
        # A value of several lines shows up line by line; the longest goes first, for one may hold another.
        parts = {part for value in values for part in (value, *value.splitlines())}
        self._values = sorted((part for part in parts if len(part) >= _SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with every secret value masked."""
        for value in self._values:
            text = text.replace(value, _MASK)
        return text


class RunLog:
    """Hands lines to a run's logger and keeps the last ones for the state's message."""

    def __init__(self, logger: logging.LoggerAdapter[logging.Logger], settings: Logging, mask: Mask) -> None:
        self._logger = logger
        self._mask = mask
        self._level = logging.getLevelName(settings.level) if settings.prefect else logging.CRITICAL
        self._latest: datetime | None = None
        self._tail: dict[Stream, deque[str]] = {
            "stdout": deque(maxlen=_TAIL_LINES),
            "stderr": deque(maxlen=_TAIL_LINES),
        }

    async def follow(self, container: Container) -> None:
        """Log the container's lines until its log ends, going on where an earlier call was interrupted."""
        async for line in container.logs(self._latest):
            self._latest = line.timestamp
            self.write(line)

    def write(self, line: LogLine) -> None:
        """Log one line with the container's own timestamp, by which Prefect orders records."""
        text = self._mask(line.text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))
        self._tail[line.stream].append(text[:_TAIL_WIDTH])
        if (level := _LEVELS[line.stream]) < self._level:
            return
        logger = self._logger.logger
        record = logger.makeRecord(logger.name, level, "", 0, text, (), None, extra=dict(self._logger.extra or {}))
        record.created = line.timestamp.timestamp()
        record.msecs = line.timestamp.microsecond / 1000
        logger.handle(record)

    def tail(self) -> tuple[str, ...]:
        """The last lines of stderr, or of stdout where stderr was silent."""
        return tuple(self._tail["stderr"] or self._tail["stdout"])
