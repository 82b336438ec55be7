"""Retries by cause: whether another attempt follows one that ended, when it starts, and why or why not."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect_jobs.job import Retries
from prefect_jobs.outcome import Blame, Outcome

_CAUSES = {Blame.JOB: "failures", Blame.INFRASTRUCTURE: "failures of the infrastructure"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows an attempt that ended."""

    again: bool
    """Whether another attempt is made."""
    words: str
    """Which retry it is, or why there is none; empty where nobody would ask."""
    starts: datetime
    """When it starts, where another one is made."""

    @property
    def pause(self) -> float:
        """Seconds from now until it starts."""
        return max(0.0, (self.starts - datetime.now(UTC)).total_seconds())


class Budget:
    """What is left of a run's retries, and until when it may use them.

    Delays are spread by ``seed``, which is the run's own: whoever takes a run up comes to the same delay.
    """

    def __init__(self, retries: Retries, total_seconds: float | None, seed: object = "") -> None:
        self._retries = retries
        self._granted = {Blame.JOB: retries.failures, Blame.INFRASTRUCTURE: retries.infrastructure}
        self._used: Counter[Blame] = Counter()
        self._total_seconds = total_seconds
        self._seed = seed
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
            return Verdict(False, f"exit code {outcome.exit_code} is never retried", ended)
        if used >= granted:
            words = f"{used} of {granted} retries after {_CAUSES[cause]} are used" if granted else ""
            return Verdict(False, words, ended)
        delay = self._delay(self._used.total() + 1)
        starts = ended + timedelta(seconds=delay)
        if self._deadline is not None and starts >= self._deadline:
            return Verdict(False, f"a retry after {delay:.3g} s would begin past the total timeout", starts)
        self._used[cause] += 1
        return Verdict(True, f"retry {used + 1} of {granted} after {_CAUSES[cause]}", starts)

    def _delay(self, retry: int) -> float:
        """Seconds before the first, second, … retry, spread by the jitter."""
        spread = random.Random(f"{self._seed} {retry}").uniform(-1, 1) * self._retries.jitter  # noqa: S311 - no secret
        return self._retries.delay_before(retry) * (1 + spread)
