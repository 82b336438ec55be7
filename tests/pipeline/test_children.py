"""The runs of steps are begun as long as they are wanted, and all that were begun are cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pipelines import There
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Failed
from proxy import api_proxy
from servers import Server

from prefect_jobs import Pipeline, apply
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.document import load_document
from prefect_jobs.flows import children as module
from prefect_jobs.flows.children import Children, children_of, read_targets
from prefect_jobs.flows.ends import ends
from prefect_jobs.flows.handover import hand_over
from prefect_jobs.flows.steps import StepRun
from prefect_jobs.job import Job

# So many, and so slowly, that making them all takes several times as long as hearing that one has failed.
COUNT, PAUSE = 300, 0.5


@dataclass(frozen=True)
class Begun:
    """A step whose runs nobody takes, for no worker is there."""

    there: There
    client: PrefectClient
    step: StepRun
    children: Children

    async def some_are_there(self) -> list[Any]:
        return await self.there.until(lambda them: len(them) >= 8, "the first runs")


@asynccontextmanager
async def _begun(mark: str, count: int = COUNT) -> AsyncIterator[Begun]:
    text = f"""
jobs: {{one-{mark}: {{command: [x], parameters: {{n: {{type: integer}}}}}}}}
pipelines: {{p-{mark}: {{steps: {{many: {{job: one-{mark}, matrix: {{n: {list(range(count))}}}}}}}}}}}
"""
    document = load_document(text)
    await apply(document.jobs, document.pipelines, work_pool=None)
    pipeline: Pipeline = document.pipelines[0]
    run = await pipeline.run()
    async with get_client() as client, ends() as ended:
        targets = await read_targets(client, pipeline.jobs)
        children = Children(client, run.flow_run, pipeline.name, targets, ended)
        step = StepRun("many", pipeline.steps["many"])
        step.prepare({}, targets, {}, {})
        yield Begun(There(run), client, step, children)


async def test_no_run_is_begun_once_one_has_failed(server: Server, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _begun(mark) as begun:
        create = begun.client.create_flow_run_from_deployment

        async def slowly(*args: Any, **fields: Any) -> Any:
            await asyncio.sleep(PAUSE)
            return await create(*args, **fields)

        monkeypatch.setattr(begun.client, "create_flow_run_from_deployment", slowly)
        running = asyncio.create_task(begun.step.run(begun.children))
        first = (await begun.some_are_there())[0]
        await begun.client.set_flow_run_state(first.id, Failed(), force=True)
        await begun.there.until(lambda them: any(child.state_name == "Failed" for child in them), "a failure")
        branch = begun.step.branches[first.parameters["index"]]
        async with asyncio.timeout(30):
            while not branch.failed:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        count = len(await begun.there.children())
        assert count < COUNT
        await asyncio.sleep(1)
        assert len(await begun.there.children()) == count
        for child in await begun.there.children():
            if child.state_name != "Failed":
                await begun.client.set_flow_run_state(child.id, Completed(), force=True)
        await running
        begun.step.conclude()
        assert f"1 of {COUNT} runs failed and {COUNT - count} were not begun" in begun.step.why


async def test_who_cancels_waits_for_no_run_that_was_not_sent_and_leaves_none(server: Server, mark: str) -> None:
    async with _begun(mark) as begun:
        running = asyncio.create_task(begun.step.run(begun.children))
        await begun.some_are_there()
        running.cancel()
        assert await begun.children.cancel("enough", 60) == 0
        children = await begun.there.children()
        assert len(children) < COUNT
        assert {child.state_name for child in children} == {"Cancelled"}
        await asyncio.sleep(1)
        assert len(await begun.there.children()) == len(children)


async def test_what_goes_on_is_found_although_others_end_meanwhile(
    server: Server, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 5)
    async with _begun(mark, 20) as begun:
        running = asyncio.create_task(begun.step.run(begun.children))
        everyone = await begun.there.until(lambda them: len(them) == 20, "all runs")
        read = begun.client.read_flow_runs

        async def read_while_they_end(**asked: Any) -> Any:
            page = await read(**asked)
            for child in page:
                await begun.client.set_flow_run_state(child.id, Completed(), force=True)
            return page

        monkeypatch.setattr(begun.client, "read_flow_runs", read_while_they_end)
        found = [child.id async for child in children_of(begun.client, begun.there.run.id, going=True)]
        assert sorted(found) == sorted(child.id for child in everyone)
        await running


async def test_a_step_hands_over_when_the_api_is_back(server: Server, mark: str, tmp_path: Path) -> None:
    await ObjectStore(url=f"file://{tmp_path}").save(f"state-{mark}")
    async with _begun(mark, 1) as begun, api_proxy(server.url) as proxy:
        job = Job(name=f"one-{mark}", command=["x"], store=f"state-{mark}")
        # Prefect's client by itself rides out an outage of a minute.
        with temporary_settings({PREFECT_API_URL: proxy.url, PREFECT_CLIENT_MAX_RETRIES: 0}):
            await proxy.shut()
            giving = asyncio.create_task(hand_over("p", begun.there.run.id, begun.step, job, [begun.step]))
            await asyncio.sleep(3)
            assert not giving.done()
            await proxy.open()
            async with asyncio.timeout(30):
                await giving
    document = json.loads((tmp_path / "p" / str(begun.there.run.id) / "many" / "results.json").read_text())
    assert document["branches"] == []
