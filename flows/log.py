"""A container's lines on their way to the run's log: with their own time, without secrets, each once."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime
from typing import Protocol

from prefect_jobs.blocks.engine import Container, LogLine, Stream
from prefect_jobs.flows.console import Console
from prefect_jobs.flows.mask import Mask, MaskedLines
from prefect_jobs.flows.terminal import shown
from prefect_jobs.job import Logging

_LEVELS: dict[Stream, int] = {"stdout": logging.INFO, "stderr": logging.WARNING}
_TAIL_LINES = 10
_TAIL_WIDTH = 500
# Prefect's API refuses records of more than 1 MB.
_LONGEST_LINE = 250_000


_LOGGER = "container."


def logger_name(attempt: int) -> str:
    """The logger that a container's lines have in Prefect; everything else in a run's log is Prefect's or ours."""
    return f"{_LOGGER}{attempt}"


def is_container_line(logger: str) -> bool:
    """Whether a record of that logger is a line that a container wrote."""
    return logger.startswith(_LOGGER)


class Sink(Protocol):
    """Where records go; `prefect_jobs.flows.delivery.Delivery` takes them to Prefect's API."""

    async def latest(self, since: datetime) -> datetime | None:
        """The time of the latest record that is there, if one of that time or later is."""

    async def put(self, level: int, when: datetime, message: str) -> None:
        """Take a record, of a later time than the one before it; returns when there is room for the next."""

    async def flush(self) -> None:
        """Return when all records are there."""


class RunLog:
    """The lines of one attempt: to Prefect's API up to a bound, to the local log, and the last ones kept.

    Where an earlier supervisor may have had the attempt (``taken_up``), its log is read from the start: lines that the
    API holds already are counted and not delivered again. Prefect gets what a terminal would show of a line.
    """

    def __init__(
        self,
        sink: Sink,
        console: logging.LoggerAdapter[logging.Logger],
        settings: Logging,
        mask: Mask,
        *,
        taken_up: bool,
    ) -> None:
        self._sink = sink
        self._console = Console(console)
        self._mask = mask
        self._masked = MaskedLines(mask)
        self._prefect = settings.prefect
        self._most = settings.max_lines
        self._level = logging.getLevelName(settings.level)
        self._taking_up = taken_up and settings.prefect
        self._latest: datetime | None = None
        self._read: datetime | None = None
        self._lines = 0
        self._tail: dict[Stream, deque[str]] = {
            "stdout": deque(maxlen=_TAIL_LINES),
            "stderr": deque(maxlen=_TAIL_LINES),
        }

    async def follow(self, container: Container) -> None:
        """Log the container's lines until its log ends, going on where an earlier call was interrupted."""
        async for line in container.logs(self._read):
            if self._taking_up:
                # No record of this attempt is earlier than its first line.
                self._latest = await self._sink.latest(line.timestamp)
                self._taking_up = False
            self._read = line.timestamp
            text = self._keep(line)
            if (level := self._level_in_prefect(line)) is not None:
                await self._deliver(level, line.timestamp, self._shown(text))

    async def finish(self) -> None:
        """Deliver what is on its way, and say how many lines were left out."""
        self._console.finish()
        if self._prefect and self._lines > self._most and self._read is not None and self._read != self._latest:
            await self._sink.put(
                logging.WARNING,
                self._read,
                f"{self._lines - self._most} more lines were left out: logging.max_lines is {self._most}",
            )
        await self._sink.flush()

    def _keep(self, line: LogLine) -> str:
        """Keep a line among the last ones, and say how it reads without secrets."""
        text = self._masked(line)
        self._tail[line.stream].append(text if len(text) <= _TAIL_WIDTH else self._shown(text)[:_TAIL_WIDTH])
        return text

    def _shown(self, text: str) -> str:
        """What a terminal would show; what moves its cursor may have stood in the middle of a secret."""
        return text if (plain := shown(text)) == text else self._mask(plain)

    def _level_in_prefect(self, line: LogLine) -> int | None:
        """Count a line; its level in Prefect where it goes there and is not there already."""
        level = _LEVELS[line.stream]
        if not self._prefect or level < self._level:
            return None
        self._lines += 1
        if self._lines > self._most or (self._latest is not None and line.timestamp <= self._latest):
            return None
        return level

    async def _deliver(self, level: int, when: datetime, text: str) -> None:
        if len(text) > _LONGEST_LINE:
            text = f"{text[:_LONGEST_LINE]} … ({len(text) - _LONGEST_LINE} more characters)"
        self._console.show(level, text)
        await self._sink.put(level, when, text)

    def tail(self) -> tuple[str, ...]:
        """The last lines of stderr, or of stdout where stderr was silent."""
        return tuple(self._tail["stderr"] or self._tail["stdout"])
