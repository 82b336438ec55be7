"""A container's lines on their way to the run's log: with their own time, without secrets, each once."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime

from prefect_jobs.blocks.engine import Container, LogLine, Stream
from prefect_jobs.flows.delivery import Delivery
from prefect_jobs.flows.mask import Mask
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


class RunLog:
    """The lines of one attempt: to Prefect's API up to a bound, to the local log, and the last ones kept.

    Where an earlier supervisor may have had the attempt (``taken_up``), its log is read from the start: lines that the
    API holds already are counted and not delivered again.
    """

    def __init__(
        self,
        delivery: Delivery,
        console: logging.LoggerAdapter[logging.Logger],
        settings: Logging,
        mask: Mask,
        *,
        taken_up: bool,
    ) -> None:
        self._delivery = delivery
        self._console = console
        self._mask = mask
        self._prefect = settings.prefect
        self._taken_up = taken_up
        self._most = settings.max_lines
        self._level = logging.getLevelName(settings.level)
        self._latest: datetime | None = None
        self._read: datetime | None = None
        self._lines = 0
        self._cut: dict[Stream, str] = {"stdout": "", "stderr": ""}
        self._tail: dict[Stream, deque[str]] = {
            "stdout": deque(maxlen=_TAIL_LINES),
            "stderr": deque(maxlen=_TAIL_LINES),
        }

    async def follow(self, container: Container) -> None:
        """Log the container's lines until its log ends, going on where an earlier call was interrupted."""
        if self._taken_up and self._read is None and self._prefect:
            self._latest = await self._delivery.latest()
        async for line in container.logs(self._read):
            self._read = line.timestamp
            await self._log(line)

    async def finish(self) -> None:
        """Deliver what is on its way, and say how many lines were left out."""
        if self._prefect and self._lines > self._most and self._read is not None:
            await self._delivery.put(
                logging.WARNING,
                self._read,
                f"{self._lines - self._most} more lines were left out: logging.max_lines is {self._most}",
            )
        await self._delivery.flush()

    async def _log(self, line: LogLine) -> None:
        written = line.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        text = self._mask(written, after=self._cut[line.stream])
        # The next line may be the rest of this one, which was too long to come whole (see `LONGEST_LINE`).
        self._cut[line.stream] = written[-self._mask.longest - 1 :] if len(written) > _LONGEST_LINE else ""
        self._tail[line.stream].append(text[:_TAIL_WIDTH])
        if not self._prefect or (level := _LEVELS[line.stream]) < self._level:
            return
        self._lines += 1
        if self._lines > self._most:
            return
        if len(text) > _LONGEST_LINE:
            text = f"{text[:_LONGEST_LINE]} … ({len(text) - _LONGEST_LINE} more characters)"
        if self._latest is None or line.timestamp > self._latest:
            self._console.log(level, "%s", text, extra={"send_to_api": False})
            await self._delivery.put(level, line.timestamp, text)

    def tail(self) -> tuple[str, ...]:
        """The last lines of stderr, or of stdout where stderr was silent."""
        return tuple(self._tail["stderr"] or self._tail["stdout"])
