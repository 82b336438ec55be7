"""Claims that come late: of runs that have ended meanwhile, and of a supervisor whose lease has run out meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from counting import container_starts
from looks import all_ended, states_of
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings
from reach import until
from servers import Server
from workers import StartWorker

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.worker_due import Wanted
from prefect_jobs.deployments.worker_owner import taken_by
from prefect_jobs.deployments.worker_supervisor import OnStop, Supervisor
from prefect_jobs.deployments.worker_taking import Taking


@asynccontextmanager
async def supervising(pool: str) -> AsyncIterator[Supervisor]:
    """A supervisor of this process that holds its lease."""
    supervisor = Supervisor(pool, "late", lambda: None)
    supervisor.open()
    await supervisor.held()
    async with get_client() as client:
        yield supervisor
        await supervisor.stop(OnStop.WAIT, client)


class HeldBack(PrefectClient):
    """A client that hears late which runs are due, as over a slow network, or when its process stood still."""

    def __init__(self) -> None:
        super().__init__(str(get_current_settings().api.url))
        self.answered, self.hears = asyncio.Event(), asyncio.Event()

    async def request(self, method: Any, path: Any, *args: Any, **options: Any) -> httpx.Response:
        """As Prefect's."""
        answer = await super().request(method, path, *args, **options)
        if path.endswith("/get_scheduled_flow_runs"):
            self.answered.set()
            await self.hears.wait()
        return answer


async def test_a_run_that_ended_since_it_was_read_is_not_begun_again_and_ends_as_it_did(
    server: Server, start_worker: StartWorker, pool: str, busybox: str
) -> None:
    job = Job(name=pool, infrastructure="docker", image=busybox, command=["true"], concurrency=2)
    await job.apply(work_pool=pool)
    runs: list[JobRun] = [await job.run(), await job.run(command=["sh", "-c", "exit 3"])]
    async with supervising(pool) as supervisor, HeldBack() as client, container_starts(pool) as starts:
        taking = Taking(client, supervisor, Wanted(pool=pool, worker="late", prefetch_seconds=10))
        late = asyncio.create_task(taking.poll())
        await client.answered.wait()
        other = await start_worker()
        await all_ended(runs, 60)
        await other.stop()
        before = [await states_of(run.id) for run in runs]
        client.hears.set()
        assert {flow_run.id for flow_run in await late} == {run.id for run in runs}

        async def were_claimed() -> bool:
            now = [await states_of(run.id) for run in runs]
            return all(len(states) >= len(old) + 2 for states, old in zip(now, before, strict=True))

        await until(were_claimed, 30, "both claims")
        await all_ended(runs, 60)
        await taking.close()
    said = [(states[-1].name, states[-1].message) for states in before]
    assert [run.state for run in runs] == ["Completed", "Failed"]
    assert [(state and state.name, state and state.message) for state in (run.flow_run.state for run in runs)] == said
    assert [sum(state.is_running() for state in await states_of(run.id)) for run in runs] == [1, 1]
    assert starts == {str(run.id): 1 for run in runs}


class Slow(PrefectClient):
    """A client of a supervisor whose lease runs out while a claim is on its way."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(str(get_current_settings().api.url))
        self._supervisor = supervisor

    async def set_flow_run_state(self, *args: Any, **options: Any) -> OrchestrationResult[Any]:
        """As Prefect's."""
        answer = await super().set_flow_run_state(*args, **options)
        self._supervisor.lease.held_until = 0.0
        return answer


async def test_a_run_whose_claim_was_answered_too_late_is_begun_as_soon_as_the_lease_is_held_again(
    server: Server, pool: str
) -> None:
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    async with supervising(pool) as supervisor, Slow(supervisor) as client:
        await supervisor.looked.wait()
        run: JobRun = await job.run()
        taking = Taking(client, supervisor, Wanted(pool=pool, worker="late", prefetch_seconds=10))
        assert [flow_run.id for flow_run in await taking.poll()] == [run.id]
        await all_ended([run], 30)
        await taking.close()
    assert run.state == "Completed"


async def test_a_run_is_not_claimed_under_a_lease_that_has_run_out(server: Server, pool: str) -> None:
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    async with supervising(pool) as supervisor, get_client() as client:
        run: JobRun = await job.run()
        taking = Taking(client, supervisor, Wanted(pool=pool, worker="late", prefetch_seconds=10))
        assert [flow_run.id for flow_run in await taking.poll()] == [run.id]
        supervisor.lease.held_until = 0.0

        async def is_let_go() -> bool:
            return run.id not in supervisor.mine

        await until(is_let_go, 10, "the claim's end")
        await taking.close()
        assert (await run.refresh()).state == "Scheduled"


class Deleting(PrefectClient):
    """A client of somebody who deletes the first of the runs that are listed."""

    def __init__(self) -> None:
        super().__init__(str(get_current_settings().api.url))

    async def read_flow_runs(self, *args: Any, **options: Any) -> list[FlowRun]:
        """As Prefect's."""
        found = await super().read_flow_runs(*args, **options)
        await self.delete_flow_run(found[0].id)
        return found


async def test_a_run_that_is_deleted_when_it_is_handed_back_keeps_no_other_from_it(server: Server, pool: str) -> None:
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    runs: list[JobRun] = [await job.run(), await job.run()]
    supervisor = Supervisor(pool, "late", lambda: None)
    supervisor.open()
    lease = await supervisor.held()
    await supervisor.looked.wait()
    async with Deleting() as client:
        for run in runs:
            await client.set_flow_run_state(run.id, taken_by(lease.id, "late"))
        await supervisor.stop(OnStop.DETACH, client)
    assert (await runs[1].refresh()).state == "Scheduled"
