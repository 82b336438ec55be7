"""Retries by cause: whether another attempt follows one that ended, when it starts, and why or why not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_jobs.job import Retries
from prefect_jobs.outcome import Blame, Outcome

# Prefect takes no more.
_MOST_DELAYS = 50
_CAUSES = {Blame.JOB: "failures", Blame.INFRASTRUCTURE: "failures of the infrastructure"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows an attempt that ended."""

    again: bool
    """Whether another attempt is made."""
    words: str
    """Which retry it is, or why there is none; empty where nobody would ask."""


class Budget:
    """What is left of a run's retries, and until when it may use them."""

    def __init__(self, retries: Retries, total_seconds: float | None) -> None:
        self._retries = retries
        self._granted = {Blame.JOB: retries.failures, Blame.INFRASTRUCTURE: retries.infrastructure}
        self._used: Counter[Blame] = Counter()
        self._total_seconds = total_seconds
        self._starts = datetime.now(UTC)
        self.count_from(datetime.now(UTC))

    def count_from(self, started: datetime) -> None:
        """Let the total timeout run from a time on."""
        total = self._total_seconds
        self._deadline = None if total is None else started + timedelta(seconds=total)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run's total timeout, or None without one."""
        return None if self._deadline is None else max(0.0, (self._deadline - datetime.now(UTC)).total_seconds())

    def spend(self, outcome: Outcome, ended: datetime | None = None) -> Verdict:
        """Decide what follows an attempt that ended just now, or at a time; takes a retry from the budget of its cause.

        A retry that could only begin past the total timeout is none: the run ends at once, and with the reason that
        its attempt has.
        """
        # The engine's clock may be ahead of this one.
        now = datetime.now(UTC)
        ended = now if ended is None else min(ended, now)
        cause = outcome.blame
        granted, used = self._granted.get(cause, 0), self._used[cause]
        if outcome.exit_code in self._retries.never_on:
            return Verdict(False, f"exit code {outcome.exit_code} is never retried")
        if used >= granted:
            words = f"{used} of {granted} retries after {_CAUSES[cause]} are used" if granted else ""
            return Verdict(False, words)
        delay = self._retries.delay_before(self._used.total() + 1)
        self._starts = ended + timedelta(seconds=delay)
        if self._deadline is not None and self._starts >= self._deadline:
            return Verdict(False, f"a retry after {delay:.3g} s would begin past the total timeout")
        self._used[cause] += 1
        after = f" in about {delay:.3g} s" if delay else ""
        return Verdict(True, f"retry {used + 1} of {granted} after {_CAUSES[cause]}{after}")

    @property
    def is_granted(self) -> bool:
        """Whether the job has any retries."""
        return any(self._granted.values())

    @property
    def pause(self) -> float:
        """Seconds from now until the retry that was granted last starts, without jitter."""
        return max(0.0, (self._starts - datetime.now(UTC)).total_seconds())

    def task_options(self) -> dict[str, Any]:
        """Options of Prefect's task that makes the attempts from now on.

        The number of retries is never reached, for `spend` decides each time: Prefect logs an empty traceback for a
        task that returns a failed state when no retry is left.
        """
        used = self._used.total()
        most = 1 + sum(self._granted.values()) - used
        delays = [self._retries.delay_before(used + retry) for retry in range(1, min(most, _MOST_DELAYS) + 1)]
        # Prefect repeats the last delay of a list.
        return {
            "retries": most,
            "retry_delay_seconds": delays if any(delays) else None,
            "retry_jitter_factor": self._retries.jitter or None,
        }
