"""How an attempt ended: the one answer that states, retries and exit codes are made from."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from prefect_jobs.model import Model


class Reason(StrEnum):
    """Why an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    IMAGE_UNAVAILABLE = "image unavailable"
    UNSCHEDULABLE = "unschedulable"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    LOST = "lost"
    KILLED = "killed"
    CANCELLED = "cancelled"


class Blame(StrEnum):
    """Whose retries an ended attempt counts against."""

    NOBODY = "nobody"
    JOB = "job"
    INFRASTRUCTURE = "infrastructure"


_BLAME = {
    Reason.FAILED: Blame.JOB,
    Reason.OUT_OF_MEMORY: Blame.JOB,
    Reason.TIMED_OUT: Blame.JOB,
    Reason.UNSCHEDULABLE: Blame.INFRASTRUCTURE,
    Reason.EVICTED: Blame.INFRASTRUCTURE,
    Reason.PREEMPTED: Blame.INFRASTRUCTURE,
    Reason.LOST: Blame.INFRASTRUCTURE,
    Reason.KILLED: Blame.INFRASTRUCTURE,
}

# What a shell would report: timeout(1) uses 124, an interrupted program 130, anything else that failed 1.
_SHELL_CODES = {Reason.SUCCEEDED: 0, Reason.TIMED_OUT: 124, Reason.CANCELLED: 130}


class Outcome(Model):
    """The end of one attempt."""

    reason: Reason
    """Why it ended."""
    attempt: int = 1
    """Which attempt it was, from 1."""
    exit_code: int | None = None
    """The exit code of the container, where it had one; 128 + N after signal N."""
    message: str = ""
    """What happened and what to do, for a person."""
    tail: tuple[str, ...] = ()
    """The last lines that the container wrote to stderr, or to stdout where stderr was silent."""
    image: str | None = None
    """What the container was made from, by digest where the engine knows it."""
    started: datetime | None = None
    """When the container started."""
    ended: datetime | None = None
    """When it ended."""

    @property
    def blame(self) -> Blame:
        """Whose retries this counts against."""
        return _BLAME.get(self.reason, Blame.NOBODY)

    @property
    def succeeded(self) -> bool:
        """Whether the exit code was 0."""
        return self.reason is Reason.SUCCEEDED

    @property
    def seconds(self) -> float | None:
        """How long the container ran, in seconds."""
        if self.started is None or self.ended is None:
            return None
        # An engine may note the start of a very short container after its end.
        return max(0.0, (self.ended - self.started).total_seconds())

    @property
    def shell_code(self) -> int:
        """The exit code that a command line should end with."""
        if self.reason in _SHELL_CODES:
            return _SHELL_CODES[self.reason]
        return self.exit_code or 1

    def summary(self) -> str:
        """The outcome in one line."""
        match self.reason:
            case Reason.SUCCEEDED:
                return "exit code 0"
            case Reason.FAILED:
                return f"exit code {self.exit_code}" + (f": {self.message}" if self.message else "")
            case _:
                return f"{self.reason}: {self.message}" if self.message else str(self.reason)

    def text(self) -> str:
        """The outcome for a state's message: the summary, then the last lines."""
        return "\n".join((self.summary(), *self.tail))
