"""Cancelling from outside: asking the run's worker, waiting until it is done, and doing it where no worker is left."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from prefect_jobs.deployments.printing import nothing
from prefect_jobs.deployments.watch import follow, read_run
from prefect_jobs.deployments.worker_lease import LEASE_SECONDS, read_leases
from prefect_jobs.deployments.worker_owner import owner_now, said_owner
from prefect_jobs.errors import JobError
from prefect_jobs.flows.cancellation import NOTHING_LEFT, cancelled_message
from prefect_jobs.flows.children import CHILDREN_SECONDS, cancel_child, children_of, why_cancelled
from prefect_jobs.flows.ending import Remains
from prefect_jobs.flows.insisting import insist
from prefect_jobs.names import PIPELINE

# Beyond the grace period: a flow's process hears of it within seconds, and has a container's last lines to deliver.
_SUPERVISOR_SECONDS = 15.0
# An API that takes so long to answer was away; how often a pipeline's worker is then given its time anew.
_SLOW_SECONDS, _LOOKS = 5.0, 5
# For how long a worker that lives is waited for; Prefect itself ends a run after minutes, unless it is told otherwise.
_CLEAN_UP_SECONDS = 3600.0


def by_whom(how: str) -> str:
    """Who cancels, for the message of the state: ``cancelled by ann@laptop with prefect-jobs cancel``."""
    who = socket.gethostname()
    with contextlib.suppress(KeyError, OSError):  # A container's user may have no name.
        who = f"{getpass.getuser()}@{who}"
    return f"cancelled by {who} with {how}"


async def ask(client: PrefectClient, flow_run: FlowRun, how: str) -> FlowRun:
    """Ask for a run to be cancelled, and return it as it is then: one that has not begun has ended.

    Raises:
        NotFoundError: it was deleted.
    """
    flow_run = await read_run(client, flow_run.id)
    if _is_cancelling(flow_run):
        return await _unless_begun(client, flow_run, how)
    if flow_run.state is not None and flow_run.state.is_final():
        return flow_run
    await client.set_flow_run_state(flow_run.id, Cancelling(message=by_whom(how)))
    flow_run = await read_run(client, flow_run.id)
    if flow_run.state is not None and flow_run.state.is_cancelled() and not flow_run.state.message:
        return await end(client, flow_run, by_whom(how))  # Prefect ended it by itself, without a word.
    return await _unless_begun(client, flow_run, how)


async def _unless_begun(client: PrefectClient, flow_run: FlowRun, how: str) -> FlowRun:
    """End a run that is Cancelling and whose flow has not begun: it never will, and Prefect leaves it so."""
    if _is_cancelling(flow_run) and flow_run.run_count == 0:
        return await end(client, flow_run, f"{by_whom(how)}; it had not begun")
    return flow_run


def _is_cancelling(flow_run: FlowRun) -> bool:
    return flow_run.state is not None and flow_run.state.is_cancelling()


async def end(client: PrefectClient, flow_run: FlowRun, message: str) -> FlowRun:
    """Let a run be Cancelled, whatever it is now."""
    cancelled: State[Any] = Cancelled(message=message)
    with contextlib.suppress(ObjectNotFound):
        await insist(partial(client.set_flow_run_state, flow_run.id, cancelled, force=True), "end a run")
    return await read_run(client, flow_run.id)


async def see_to_it(
    client: PrefectClient, flow_run: FlowRun, tell: Callable[[str], None], *, force: bool = False
) -> FlowRun:
    """Wait until a run that is Cancelling has ended; where nobody stops its container in time, do it from here.

    With ``force`` nobody is waited for, and the run ends Cancelled whether its container was found or not. Else a run
    whose container cannot be found from here is returned as it is.
    """
    if PIPELINE in flow_run.parameters:
        return await _see_to_pipeline(client, flow_run, tell, force=force)
    try:
        remains = Remains(flow_run)
    except JobError as error:
        tell(f"{error}")
        return await end(client, flow_run, cancelled_message(flow_run.state, "forced")) if force else flow_run
    if flow_run.state is not None and flow_run.state.is_final():
        tell(f"{flow_run.name}: {(await _end_from_here(client, remains))[1]}")
        return flow_run
    if not force:
        patience = remains.grace_seconds + _SUPERVISOR_SECONDS
        tell(f"Cancelling {flow_run.name}; its worker is given {patience:g} s to stop the container")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await follow(client, flow_run, on_state=nothing, on_log=nothing)
        flow_run = await insist(partial(read_run, client, flow_run.id), "read a run")
        if flow_run.state is None or flow_run.state.is_final():
            if flow_run.run_count > 1 and flow_run.state is not None and flow_run.state.is_cancelled():
                # Its worker may have ended it before it took up what an earlier supervisor had left.
                await _end_from_here(client, remains)
            return flow_run
        tell("Nobody carries it out: its worker is gone or does not answer")
    tell(f"Looking for its container on {remains.infrastructure}, as seen from {socket.gethostname()}")
    found, words = await _end_from_here(client, remains)
    if found or force:
        tell(f"{flow_run.name}: {words}")
        how = f"ended from {socket.gethostname()}, for its supervisor did not answer; {words}"
        return await end(client, flow_run, cancelled_message(flow_run.state, how))
    tell(
        f"{flow_run.name} is still Cancelling: {words}. Cancel it again where its worker ran, or with --force, which "
        "ends it Cancelled whatever is left; 'prefect-jobs sweep' there removes that. Prefect itself ends a run that "
        "is Cancelling for five minutes"
    )
    return flow_run


async def _see_to_pipeline(
    client: PrefectClient, flow_run: FlowRun, tell: Callable[[str], None], *, force: bool
) -> FlowRun:
    """The same for a run of a pipeline: of it there is nothing but the runs of its steps."""
    is_final = flow_run.state is not None and flow_run.state.is_final()
    if not is_final and not force:
        tell(f"Cancelling {flow_run.name}; its worker is given {CHILDREN_SECONDS:g} s to cancel the runs of its steps")
        flow_run = await _ended_by_its_worker(client, flow_run, tell)
        if flow_run.state is None or flow_run.state.is_final():
            return flow_run
        tell("Nobody carries it out: its worker is gone or does not answer")
    count = await _cancel_going(client, flow_run, tell, force=force)
    if is_final:
        return flow_run
    how = f"ended from {socket.gethostname()}, for its worker did not answer; {count} runs of it were cancelled"
    ended = await end(client, flow_run, cancelled_message(flow_run.state, how))
    # What was on its way meanwhile.
    await _cancel_going(client, flow_run, tell, force=force)
    return ended


async def _ended_by_its_worker(client: PrefectClient, flow_run: FlowRun, tell: Callable[[str], None]) -> FlowRun:
    """A pipeline's run as its worker ends it, or as it is when none does; one that is seen to live has all its time."""
    looks, before = _LOOKS, await insist(partial(_sign_of_life, client, flow_run), "look for a worker")
    deadline = time.monotonic() + _CLEAN_UP_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHILDREN_SECONDS):
                await follow(client, flow_run, on_state=nothing, on_log=nothing)
        asked = time.monotonic()
        flow_run = await insist(partial(read_run, client, flow_run.id), "read a run")
        if flow_run.state is None or flow_run.state.is_final():
            return flow_run
        was_away = time.monotonic() - asked >= _SLOW_SECONDS
        after = await insist(partial(_sign_of_life, client, flow_run), "look for a worker")
        if after is not None and after == before:  # The API may have been away for both.
            await asyncio.sleep(LEASE_SECONDS)
            after = await insist(partial(_sign_of_life, client, flow_run), "look for a worker")
        if after is not None and after != before and time.monotonic() < deadline:
            tell(f"Waiting for {flow_run.name}, whose worker is at work; with --force it is ended from here")
        elif not was_away or looks <= 1:
            return await insist(partial(read_run, client, flow_run.id), "read a run")
        else:  # Its worker waits for the API as this does, and has the same time anew.
            looks -= 1
        before = after


async def _sign_of_life(client: PrefectClient, flow_run: FlowRun) -> tuple[str, int] | None:
    """What changes as long as the worker lives that has a run; None where none of this project's has it."""
    leases = await read_leases(client)
    # Who ends the run of a dead worker says so by the run itself, and takes it no more.
    for owner in (said_owner(flow_run), await owner_now(client, flow_run)):
        if owner is not None and (lease := leases.get(owner.lease)) is not None and lease.holder.heir is None:
            return owner.lease, lease.holder.renewed
    return None


async def _cancel_going(client: PrefectClient, pipeline: FlowRun, tell: Callable[[str], None], *, force: bool) -> int:
    """Cancel the runs of a pipeline's steps that go on; how many there were."""
    going = [child.id async for child in children_of(client, pipeline.id, going=True)]
    tell(f"{pipeline.name}: {len(going)} runs of its steps go on" + ("; cancelling them" if going else ""))
    await asyncio.gather(*(_cancel_child(client, child, pipeline, tell, force=force) for child in going))
    return len(going)


async def _cancel_child(
    client: PrefectClient, run_id: UUID, pipeline: FlowRun, tell: Callable[[str], None], *, force: bool
) -> None:
    await cancel_child(client, run_id, why_cancelled(pipeline))
    child = await read_run(client, run_id)
    if child.state is not None and child.state.is_cancelling():
        await see_to_it(client, child, tell, force=force)


async def _end_from_here(client: PrefectClient, remains: Remains) -> tuple[int, str]:
    """Stop and remove the containers that are seen from here: how many there were, and that in words."""
    try:
        found = await remains.end(client)
    except (JobError, TimeoutError) as error:
        return 0, f"its infrastructure could not be looked at: {error or 'no answer'}"
    return found, NOTHING_LEFT if found else "no container of it was found"
