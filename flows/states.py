"""From an outcome to the Prefect state that shows it."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, StateType

from prefect_jobs.outcome import Outcome, Reason

# The state's type and name for each reason; a name of its own only where it says more than the type does.
_STATES = {
    Reason.SUCCEEDED: (StateType.COMPLETED, "Completed"),
    Reason.FAILED: (StateType.FAILED, "Failed"),
    Reason.OUT_OF_MEMORY: (StateType.FAILED, "OutOfMemory"),
    Reason.TIMED_OUT: (StateType.FAILED, "TimedOut"),
    Reason.IMAGE_UNAVAILABLE: (StateType.CRASHED, "ImageUnavailable"),
    Reason.INPUT_UNAVAILABLE: (StateType.CRASHED, "InputUnavailable"),
    Reason.STORE_UNAVAILABLE: (StateType.CRASHED, "StoreUnavailable"),
    Reason.UNSCHEDULABLE: (StateType.CRASHED, "Unschedulable"),
    Reason.EVICTED: (StateType.CRASHED, "Evicted"),
    Reason.PREEMPTED: (StateType.CRASHED, "Preempted"),
    Reason.LOST: (StateType.CRASHED, "Lost"),
    Reason.KILLED: (StateType.CRASHED, "Killed"),
    Reason.CANCELLED: (StateType.CANCELLED, "Cancelled"),
}

STATE_NAMES = frozenset(name for _, name in _STATES.values())
"""The names of the states in which runs of jobs end."""


def run_state(outcome: Outcome) -> State[Any]:
    """The state of an attempt, and of the run whose last attempt it was."""
    type_, name = _STATES[outcome.reason]
    return State(type=type_, name=name, message=outcome.text())


def retriable(state: State[Any]) -> State[Any]:
    """A state that Prefect may retry: of type Failed where it is Crashed, which Prefect never retries."""
    type_ = StateType.FAILED if state.type is StateType.CRASHED else state.type
    return State(type=type_, name=state.name, message=state.message)


def says_cancelled(state: State[Any] | None) -> bool:
    """Whether a run in a state is cancelled, or about to be."""
    return state is not None and (state.is_cancelling() or state.is_cancelled())
