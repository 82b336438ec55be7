"""Automations that wait for a run's heartbeats hear them from a worker as they would from Prefect's own engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from proxy import api_proxy
from reach import Execute, ended, first_line, until
from workers import worker

from prefect_jobs import Job
from prefect_jobs.deployments.worker_heartbeats import Heartbeats
from prefect_jobs.deployments.worker_runs import Runs


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

    # Long enough for the thread that sends the first one.
    quick = job.model_copy(update={"command": ["sleep", "2"]})
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


# A heartbeat each second; no setting of Prefect's allows it to be so short.
QUICK = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_heartbeats, worker_runs

worker_runs.Heartbeats = lambda seconds: worker_heartbeats.Heartbeats(1)
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


async def test_there_are_none_while_the_api_is_away_and_again_when_it_is_back(prefect_api: str, tmp_path: Path) -> None:
    name = f"own-{uuid4().hex[:8]}"
    script = tmp_path / "quick.py"
    script.write_text(QUICK)
    job = Job(name=name, command=["sh", "-c", "echo up; sleep 40"])
    await job.apply(work_pool=name)
    async with (
        api_proxy(prefect_api) as proxy,
        worker("python", script, name, env={"PREFECT_API_URL": proxy.url}) as there,
    ):
        run = await job.run()
        await first_line(run)
        await proxy.shut()
        await there.says("Prefect's API does not answer", 20)
        away = datetime.now(UTC)
        await asyncio.sleep(10)
        back = datetime.now(UTC)
        await proxy.open()

        async def beats_again() -> bool:
            return any(beat > back for beat in await beats())

        async def beats() -> list[datetime]:
            return [datetime.fromisoformat(event["occurred"]) for event in await heartbeats(run.id)]

        await until(beats_again, 30, "another heartbeat")
        assert [beat for beat in await beats() if away < beat < back] == []
        assert "ERROR" not in there.said


async def test_a_run_with_more_tags_than_an_event_may_name_beats_and_lets_the_others_beat(prefect_api: str) -> None:
    name = f"own-{uuid4().hex[:8]}"
    job = Job(name=name, command=["true"])
    await job.apply(work_pool=name)
    tagged, plain = (await job.run()).flow_run, (await job.run()).flow_run
    # A server that allows an event more resources has such runs.
    tagged = tagged.model_copy(update={"tags": [f"tag-{number:03}" for number in range(120)]})
    hearts = Heartbeats(30)
    for flow_run in (tagged, plain):
        hearts.begin(flow_run, "job")

    async def both_beat() -> bool:
        return all([await heartbeats(flow_run.id) for flow_run in (tagged, plain)])

    async with get_client() as client:
        beating = asyncio.create_task(hearts.beat(client))
        await until(both_beat, 20, "a heartbeat of each run")
        beating.cancel()
    [beat] = await heartbeats(tagged.id)
    roles = Counter(related["prefect.resource.role"] for related in beat["related"])
    assert roles == {"flow": 1, "deployment": 1, "work-queue": 1, "work-pool": 1, "tag": 96}


async def test_that_they_have_ended_by_an_error_is_said_at_once(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(hearts: Heartbeats, client: PrefectClient) -> None:
        raise LookupError("nobody foresaw it")

    monkeypatch.setattr(Heartbeats, "beat", broken)
    runs = Runs("nobody", lambda run_id, left: None, copy_context())
    await asyncio.to_thread(runs.start)

    async def is_said() -> bool:
        return "heartbeats of runs ended by an error of the worker" in caplog.text

    await until(is_said, 5, "a word of it")
    await asyncio.to_thread(runs.close)
