"""From an outcome to the Prefect state that shows it."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from prefect_jobs.outcome import Outcome, Reason

# The state of a run that ended for a reason, and the state's name where it is not the type's own.
_STATES = {
    Reason.SUCCEEDED: (Completed, None),
    Reason.FAILED: (Failed, None),
    Reason.OUT_OF_MEMORY: (Failed, "OutOfMemory"),
    Reason.TIMED_OUT: (Failed, "TimedOut"),
    Reason.IMAGE_UNAVAILABLE: (Crashed, "ImageUnavailable"),
    Reason.UNSCHEDULABLE: (Crashed, "Unschedulable"),
    Reason.EVICTED: (Crashed, "Evicted"),
    Reason.PREEMPTED: (Crashed, "Preempted"),
    Reason.LOST: (Crashed, "Lost"),
    Reason.KILLED: (Crashed, "Killed"),
    Reason.CANCELLED: (Cancelled, None),
}


def run_state(outcome: Outcome) -> State[Any]:
    """The state of the run."""
    make, name = _STATES[outcome.reason]
    state: State[Any] = make(message=outcome.text())
    return state if name is None else state.model_copy(update={"name": name})


def attempt_state(outcome: Outcome) -> State[Any]:
    """The state of the attempt: as the run's, but of type Failed where it is Crashed, which Prefect never retries."""
    state = run_state(outcome)
    return Failed(name=state.name, message=state.message) if state.is_crashed() else state
