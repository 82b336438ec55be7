"""Retries by cause, in terms of Prefect's own task retries."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_jobs.job import Retries
from prefect_jobs.outcome import Blame, Outcome


class Budget:
    """What is left of a run's retries, and until when it may use them."""

    def __init__(self, retries: Retries, total_seconds: float | None) -> None:
        self._retries = retries
        self._left = Counter({Blame.JOB: retries.failures, Blame.INFRASTRUCTURE: retries.infrastructure})
        self._total_seconds = total_seconds
        self.count_from(datetime.now(UTC))

    def count_from(self, started: datetime) -> None:
        """Let the total timeout run from a time on."""
        total = self._total_seconds
        self._deadline = None if total is None else started + timedelta(seconds=total)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the run's total timeout, or None without one."""
        return None if self._deadline is None else max(0.0, (self._deadline - datetime.now(UTC)).total_seconds())

    def spend(self, outcome: Outcome) -> bool:
        """Whether another attempt follows; takes it from the budget of the cause."""
        if self._left[outcome.blame] <= 0 or outcome.exit_code in self._retries.never_on or self.seconds_left == 0:
            return False
        self._left[outcome.blame] -= 1
        return True

    def task_options(self) -> dict[str, Any]:
        """Options of Prefect's task. The number is an upper bound: `spend` decides each time.

        It is never 0, because Prefect then logs an empty traceback for a task that returns a failed state.
        """
        retries = self._retries
        most = max(1, retries.failures + retries.infrastructure)
        # Prefect repeats the last delay of a list.
        delays = retries.delays[:most] if any(retries.delays) else None
        return {"retries": most, "retry_delay_seconds": delays, "retry_jitter_factor": retries.jitter or None}
