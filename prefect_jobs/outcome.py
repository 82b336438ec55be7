"""How an attempt ended: the one answer that states, retries and exit codes are made from."""

from __future__ import annotations

import signal
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any

from prefect_jobs.model import Model


class Reason(StrEnum):
    """Why an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    IMAGE_UNAVAILABLE = "image unavailable"
    INPUT_UNAVAILABLE = "input unavailable"
    STORE_UNAVAILABLE = "store unavailable"
    UNSCHEDULABLE = "unschedulable"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    LOST = "lost"
    KILLED = "killed"
    CANCELLED = "cancelled"

    @classmethod
    def of(cls, exit_code: int) -> Reason:
        """What an exit code alone says: SIGKILL and SIGTERM come from outside, every other failure is the job's own."""
        if exit_code == 0:
            return cls.SUCCEEDED
        return cls.KILLED if exit_code in _KILLS else cls.FAILED


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

# A shell's exit code after a signal is this and the signal's number.
_SIGNALLED = 128
_KILLS = (_SIGNALLED + signal.SIGKILL, _SIGNALLED + signal.SIGTERM)

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
    waited_seconds: float | None = None
    """Seconds from the begin of the attempt to the start of its container: pull, queueing, creation."""
    cpu_seconds: float | None = None
    """Seconds of CPU time that it used, as far as the engine tells."""
    peak_memory: int | None = None
    """The most memory that it used, in bytes, as far as the engine tells."""
    outputs: str | None = None
    """The URI below which what it left is kept, where the job has a store."""
    result: Any = None
    """The small JSON result that it left in result.json, or None."""

    @property
    def blame(self) -> Blame:
        """Whose retries this counts against."""
        return _BLAME.get(self.reason, Blame.NOBODY)

    @property
    def succeeded(self) -> bool:
        """Whether the exit code was 0."""
        return self.reason is Reason.SUCCEEDED

    @property
    def had_container(self) -> bool:
        """Whether a container of the attempt has run."""
        return self.started is not None or self.reason is Reason.LOST

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

    def usage(self) -> str:
        """What the attempt took, in one line; empty where nothing is known."""
        parts = (
            ("waited {:.1f} s", self.waited_seconds),
            ("ran {:.1f} s", self.seconds),
            ("used {:.1f} s of CPU", self.cpu_seconds),
            ("at most {:.0f} MiB of memory", None if self.peak_memory is None else self.peak_memory / 2**20),
        )
        return ", ".join(words.format(value) for words, value in parts if value is not None)

    def text(self) -> str:
        """The outcome for a state's message: the summary, then the last lines."""
        return "\n".join((self.summary(), *self.tail))


def signal_name(number: int) -> str:
    """A signal as people know it: ``9 (SIGKILL)``."""
    with suppress(ValueError):
        return f"{number} ({signal.Signals(number).name})"
    return str(number)


def signal_words(exit_code: int) -> str:
    """Which signal an exit code stands for, as a shell has it; empty for all others."""
    number = exit_code - _SIGNALLED
    if number not in set(signal.Signals):
        return ""
    words = f"ended by signal {signal_name(number)}"
    if exit_code in _KILLS:
        words += " from outside: somebody, or something on its machine, killed it"
    return words
