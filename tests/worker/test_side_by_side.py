"""Several workers of one pool: each run is begun once, whoever asks for it at the same moment.

PREFECT_JOBS_WORKER_RUNS=200 makes that many short runs; the suite makes a few.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest
from counting import container_starts
from looks import all_ended, states_of
from prefect.client.orchestration import get_client
from prefect.states import Pending, Running
from reach import containers_of
from servers import Server
from workers import StartWorker

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.worker_adoption import Adoption, owner_of, taken_by
from prefect_jobs.deployments.worker_lease import Lease, read_leases

RUNS = int(os.environ.get("PREFECT_JOBS_WORKER_RUNS", "24"))


@pytest.mark.timeout(0)
async def test_two_workers_that_start_in_the_same_moment_share_the_runs_and_begin_each_once(
    start_loaded: StartWorker, pool: str, busybox: str, loaded_server: Server
) -> None:
    with loaded_server.used():
        job = Job(name=pool, infrastructure="docker", image=busybox, command=["sh", "-c", "echo once; sleep 1"])
        first = await start_loaded(name="makes-the-pool")
        await first.stop()
        await job.apply(work_pool=pool)
        async with container_starts(pool) as starts:
            runs: list[JobRun] = list(await asyncio.gather(*(job.run() for _ in range(RUNS))))
            await asyncio.gather(start_loaded("--limit=4"), start_loaded("--limit=4"))
            await all_ended(runs, 120 + 2 * RUNS)
        assert Counter(run.state for run in runs) == {"Completed": RUNS}
        assert starts == {str(run.id): 1 for run in runs}
        begun = [Counter(state.name for state in await states_of(run.id))["Running"] for run in runs]
        assert begun == [1] * RUNS
        owners = Counter(run.flow_run.infrastructure_pid for run in runs)
        assert len(owners) == 2, owners
        assert min(owners.values()) >= RUNS / 6, owners
        assert [containers_of(run.id) for run in runs] == [[]] * RUNS


async def test_two_supervisors_that_find_the_runs_of_a_dead_one_at_once_take_each_run_once(
    prefect_api: str, start_worker: StartWorker, pool: str
) -> None:
    await (await start_worker()).stop()  # It has made the pool.
    job = Job(name=pool, command=["true"])
    await job.apply(work_pool=pool)
    runs: list[JobRun] = [await job.run() for _ in range(8)]
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
            taken: list[list[object]] = [[] for _ in heirs]
            looks = [
                Adoption(pool, (lambda run_id: False), (lambda flow_run, got=got: got.append(flow_run.id)), got.append)
                for got in taken
            ]
            await asyncio.gather(*(look.look(client, lease) for look, lease in zip(looks, heirs, strict=True)))
            assert Counter(run_id for got in taken for run_id in got) == {run.id: 1 for run in runs}
            assert {name for name, seen in (await read_leases(client)).items() if seen.holder.pool == pool} == {
                lease.id for lease in heirs
            }
            [owner] = [lease.id for lease, got in zip(heirs, taken, strict=True) if got]
            states = [(await run.refresh()).flow_run.state for run in runs]
            assert {state and state.message for state in states} == {Pending(message=taken_by(owner).message).message}
        for lease in heirs:
            await lease.give_back(client)
        for run in runs:
            await client.delete_flow_run(run.id)
