"""Supervisors that find what a dead one left: each run is taken over by one of them, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings
from prefect.states import Failed, Running
from servers import Server

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.worker_adoption import Adoption
from prefect_jobs.deployments.worker_lease import Lease, claim, read_leases
from prefect_jobs.deployments.worker_owner import owner_of, taken_by

Left = tuple[PrefectClient, JobRun, Lease]
Happening = Callable[[], Awaitable[None]]


@pytest.fixture
async def left(server: Server, pool: str) -> AsyncIterator[Left]:
    """A client, a run of the pool that nobody has taken yet, and the lease of a supervisor that looks for such."""
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=pool, type="prefect-jobs"))
        job = Job(name=pool, command=["true"])
        await job.apply(work_pool=pool)
        lease = Lease(pool, "heir")
        await lease.take(client)
        yield client, await job.run(), lease
        await lease.give_back(client)


def note(got: list[UUID], flow_run: FlowRun, lease: Lease) -> None:
    """Take a run over, as a supervisor would that then begins it."""
    got.append(flow_run.id)


async def test_two_supervisors_that_find_the_runs_of_a_dead_one_at_once_take_each_run_once(
    left: Left, pool: str
) -> None:
    job = Job(name=pool, command=["true"])
    runs = [left[1], *[await job.run() for _ in range(7)]]
    heirs = [Lease(pool, f"heir-{number}") for number in range(3)]
    async with get_client() as client:
        for round_number in range(5):
            dead = f"{round_number:032x}"
            for number, run in enumerate(runs):
                await client.set_flow_run_state(run.id, taken_by(dead), force=True)
                if number % 2:
                    await client.update_flow_run(run.id, infrastructure_pid=owner_of(dead))
                    await client.set_flow_run_state(run.id, Running(), force=True)
            for lease in heirs:
                await lease.take(client)
            taken: list[list[UUID]] = [[] for _ in heirs]
            looks = [Adoption(pool, (lambda run_id: False), partial(note, got), partial(note, got)) for got in taken]
            await asyncio.gather(*(look.look(client, lease) for look, lease in zip(looks, heirs, strict=True)))
            assert Counter(run_id for got in taken for run_id in got) == {run.id: 1 for run in runs}
            assert {name for name, seen in (await read_leases(client)).items() if seen.holder.pool == pool} == {
                lease.id for lease in [*heirs, left[2]]
            }
            [owner] = [lease.id for lease, got in zip(heirs, taken, strict=True) if got]
            states = [(await run.refresh()).flow_run.state for run in runs]
            assert all(f"supervisor {owner}" in str(state and state.message) for state in states)
        for lease in heirs:
            await lease.give_back(client)
        for run in runs:
            await client.delete_flow_run(run.id)


async def taken_over(pool: str, client: PrefectClient, lease: Lease) -> list[UUID]:
    """What one look takes over."""
    got: list[UUID] = []
    await Adoption(pool, (lambda run_id: False), partial(note, got), partial(note, got)).look(client, lease)
    return got


async def test_a_run_whose_supervisor_died_before_the_run_said_whose_it_is_is_taken_over(left: Left, pool: str) -> None:
    client, run, lease = left
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    await client.set_flow_run_state(run.id, Running())
    assert (await run.refresh()).flow_run.infrastructure_pid is None
    assert await taken_over(pool, client, lease) == [run.id]


async def test_a_run_that_still_names_an_earlier_supervisor_is_left_to_the_one_that_took_it_last(
    left: Left, pool: str
) -> None:
    client, run, lease = left
    other = Lease(pool, "at work")
    await other.take(client)
    await client.update_flow_run(run.id, infrastructure_pid=owner_of(uuid4().hex))
    await client.set_flow_run_state(run.id, taken_by(other.id))
    await client.set_flow_run_state(run.id, Running())
    assert await taken_over(pool, client, lease) == []
    await other.give_back(client)
    assert await taken_over(pool, client, lease) == [run.id]


async def test_what_an_heir_did_not_get_to_take_over_is_left_to_the_next(left: Left, pool: str) -> None:
    client, run, lease = left
    dead, gone = uuid4().hex, uuid4().hex
    await client.set_flow_run_state(run.id, taken_by(dead))
    assert await claim(client, dead, None, gone, pool)
    assert await taken_over(pool, client, lease) == [run.id]
    assert dead not in await read_leases(client)


async def test_a_run_that_had_ended_when_a_supervisor_took_it_that_then_died_stays_as_it_ended(
    left: Left, pool: str
) -> None:
    client, run, lease = left
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    await client.set_flow_run_state(run.id, Running())
    await client.set_flow_run_state(run.id, Failed(message="exit code 3"))
    # Its list of runs was old.
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    assert (await run.refresh()).state == "Pending"
    assert await taken_over(pool, client, lease) == []
    state = (await run.refresh()).flow_run.state
    assert (state and state.name, state and state.message) == ("Failed", "exit code 3")


async def test_a_lease_that_is_not_held_any_more_takes_nothing_over(left: Left, pool: str) -> None:
    client, run, lease = left
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    lease.held_until = 0.0  # As after a time in which its process stood still.
    assert await taken_over(pool, client, lease) == []
    await lease.take(client)
    assert await taken_over(pool, client, lease) == [run.id]


class Slow(PrefectClient):
    """A client of a supervisor whose process stands still when it has read a run, or is about to take it."""

    def __init__(self, after_reading: Happening | None = None, before_taking: Happening | None = None) -> None:
        super().__init__(str(get_current_settings().api.url))
        self._after_reading, self._before_taking = after_reading, before_taking

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        flow_run = await super().read_flow_run(flow_run_id)
        if self._after_reading is not None:
            await self._after_reading()
        return flow_run

    async def set_flow_run_state(self, *args: Any, **options: Any) -> OrchestrationResult[Any]:
        happening, self._before_taking = self._before_taking, None
        if happening is not None:
            await happening()
        return await super().set_flow_run_state(*args, **options)


class Refused(PrefectClient):
    """A client whose requests to take one run are refused for a reason of the server's own."""

    def __init__(self, refused: UUID) -> None:
        super().__init__(str(get_current_settings().api.url))
        self._refused = refused

    async def set_flow_run_state(self, flow_run_id: Any, *args: Any, **options: Any) -> OrchestrationResult[Any]:
        if flow_run_id == self._refused:
            request = httpx.Request("POST", "http://server/set_state")
            raise httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))
        return await super().set_flow_run_state(flow_run_id, *args, **options)


async def test_one_run_that_cannot_be_taken_over_keeps_no_other_from_it_and_is_tried_again(
    left: Left, pool: str
) -> None:
    client, first, lease = left
    job = Job(name=pool, command=["true"])
    runs = [first, await job.run(), await job.run()]
    dead = [uuid4().hex, uuid4().hex]
    for run, owner in zip(runs, [dead[0], *dead], strict=True):
        await client.set_flow_run_state(run.id, taken_by(owner))
    got: list[UUID] = []
    adoption = Adoption(pool, (lambda run_id: False), partial(note, got), partial(note, got))
    async with Refused(first.id) as refused:
        await adoption.look(refused, lease)
    assert set(got) == {run.id for run in runs[1:]}
    got.clear()
    await adoption.look(client, lease)
    assert first.id in got


async def test_a_supervisor_that_stood_still_after_it_read_a_run_does_not_take_it(left: Left, pool: str) -> None:
    client, run, lease = left
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    await client.set_flow_run_state(run.id, Running())

    async def stand_still() -> None:
        lease.held_until = 0.0

    async with Slow(after_reading=stand_still) as slow:
        assert await taken_over(pool, slow, lease) == []
    assert (await run.refresh()).state == "Running"


async def test_a_supervisor_that_stood_still_when_it_was_about_to_take_a_run_gives_it_back_to_the_newer_one(
    left: Left, pool: str
) -> None:
    client, run, lease = left
    newer = Lease(pool, "newer")
    await newer.take(client)
    await client.set_flow_run_state(run.id, taken_by(uuid4().hex))
    await client.set_flow_run_state(run.id, Running())

    async def stand_still() -> None:
        await client.set_flow_run_state(run.id, taken_by(newer.id, again=True), force=True)
        await client.update_flow_run(run.id, infrastructure_pid=owner_of(newer.id))
        await client.set_flow_run_state(run.id, Running())

    async with Slow(before_taking=stand_still) as slow:
        assert await taken_over(pool, slow, lease) == []
    assert (await run.refresh()).state == "Running"
    # It is the newer one's for everybody.
    assert await taken_over(pool, client, lease) == []
    await newer.give_back(client)
    assert await taken_over(pool, client, lease) == [run.id]
