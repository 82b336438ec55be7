"""Automations that wait for a run's heartbeats hear them from a worker as they would from Prefect's own engine."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

from jobs_worker import worker
from prefect.client.orchestration import get_client
from reach import Execute, ended, until

from prefect_jobs import Job
from prefect_jobs.deployments.worker_heartbeats import Heartbeats


async def heartbeats(run_id: UUID) -> list[dict[str, Any]]:
    """The heartbeats of a run that reached the server, the newest first."""
    chosen = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run_id}"]},
    }
    async with get_client() as client:
        response = await client.request("POST", "/events/filter", json={"filter": chosen, "limit": 50})
    found: list[dict[str, Any]] = response.json()["events"]
    return found


def told(event: dict[str, Any]) -> list[dict[str, str]]:
    """What a heartbeat tells beside whose it is."""
    resource = {key: value for key, value in event["resource"].items() if key == "prefect.version"}
    return [resource, *sorted(event["related"], key=lambda each: (each["prefect.resource.role"], str(each)))]


async def test_a_run_beats_soon_and_again_and_tells_what_prefects_engine_tells(
    prefect_api: str, execute: Execute
) -> None:
    name = f"own-{uuid4().hex[:8]}"
    job = Job(name=name, command=["sleep", "34"], tags=["slow", "heart"])
    await job.apply(work_pool=name)
    async with worker("prefect-jobs", "worker", "--pool", name, env={"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}):
        run = await job.run()
        await ended(run)

        async def has_two() -> bool:
            return len(await heartbeats(run.id)) == 2

        await until(has_two, 15, "two heartbeats")
    second, first = await heartbeats(run.id)
    assert first["resource"]["prefect.resource.name"] == run.name

    quick = job.model_copy(update={"command": ["true"]})
    await quick.apply(work_pool=name)
    by_prefect = await quick.run()
    await execute(by_prefect)

    async def has_one() -> bool:
        return bool(await heartbeats(by_prefect.id))

    await until(has_one, 15, "a heartbeat of Prefect's engine")
    [theirs] = await heartbeats(by_prefect.id)
    assert told(first) == told(second) == told(theirs)
    assert first["resource"].keys() == theirs["resource"].keys()


async def test_without_a_frequency_there_are_none(prefect_api: str) -> None:
    async with asyncio.timeout(5):
        async with get_client() as client:
            await Heartbeats(None).beat(client)
