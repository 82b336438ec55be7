"""Whose a run is: the supervisor that took it, as the run's own states say."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Pending

from prefect_jobs.deployments.worker_machine import here

AGAIN = "Reattaching"
"""The name of the state of a run that a supervisor has taken over from another."""
_OWNER = re.compile(r"supervisor ([0-9a-f]{32})(?: on (\S+))?$")


class Owner(NamedTuple):
    """Who took a run, and on which machine, where that is known."""

    lease: str
    machine: str | None


def owner_of(lease: str, worker: str = "") -> str:
    """How a run says whose it is: by a lease, its machine, and the name of a worker for people."""
    return f"worker {worker!r}, supervisor {lease} on {here()}" if worker else f"supervisor {lease}"


def taken_by(lease: str, worker: str = "", *, again: bool = False) -> State[Any]:
    """The state of a run that a supervisor has taken and not begun."""
    words = f"taken by {owner_of(lease, worker)}"
    return Pending(name=AGAIN, message=words) if again else Pending(message=words)


def taker(state: State[Any]) -> Owner | None:
    """The supervisor that took a run by a state of it."""
    return _read(state.message) if state.is_pending() else None


def said_owner(flow_run: FlowRun) -> Owner | None:
    """The supervisor that the run itself names: an earlier one, perhaps, while it is beginning."""
    state = flow_run.state
    return _read(state.message if state is not None and state.is_pending() else flow_run.infrastructure_pid)


async def owner_now(client: PrefectClient, flow_run: FlowRun) -> Owner | None:
    """The supervisor that took a run last; None where it was none of this project's."""
    if flow_run.state is not None and flow_run.state.is_pending():
        return said_owner(flow_run)
    states = await client.read_flow_run_states(flow_run.id)
    for state in sorted(states, key=lambda state: state.timestamp, reverse=True):
        if found := taker(state):
            return found
    return None


def _read(words: str | None) -> Owner | None:
    found = _OWNER.search(words or "")
    return Owner(found[1], found[2]) if found else None
