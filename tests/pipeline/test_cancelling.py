"""A pipeline that is cancelled: its runs are cancelled within seconds, and what cleans up still runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipelines import There
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling, Crashed
from reach import until
from servers import Server
from workers import StartWorker, workers_of

from prefect_jobs import Job, JobRun, Pipeline, apply
from prefect_jobs.deployments import cancelling
from prefect_jobs.deployments.sweeping import sweep_now
from prefect_jobs.document import load_document

Start = Callable[..., Awaitable[Any]]

TEXT = """
jobs:
  sleep-MARK: {command: [sh, -c, 'trap "exit 0" TERM; echo up; sleep $n & wait'], grace_period: 3s,
    parameters: {n: {type: integer, default: 600}}}
pipelines:
  p-MARK:
    steps:
      first: {job: sleep-MARK, parameters: {n: 0}}
      many: {job: sleep-MARK, needs: [first], matrix: {n: [601, 602, 603, 604, 605]}, at_once: 3}
      after: {job: sleep-MARK, needs: [many]}
      clean: {job: sleep-MARK, needs: [many, after], always: true, parameters: {n: 1}}
"""


def _are_up(children: list[Any]) -> bool:
    return sum(child.state_name == "Running" and child.tags.count("step:many") for child in children) == 3


async def _execute(run: JobRun, server: Server) -> asyncio.subprocess.Process:
    """Run it in a process of its own, as a stock worker does."""
    environment = {**os.environ, "PREFECT_API_URL": server.url, "PREFECT__FLOW_RUN_ID": str(run.id)}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "prefect.engine", env=environment)


async def test_its_runs_are_cancelled_within_seconds_and_clean_up_runs(start: Start) -> None:
    there = await start(TEXT)
    await there.until(_are_up, "three runs at once")
    await asyncio.sleep(1)
    began = time.time()
    await there.run.cancel()
    many = await there.of("many")
    async with get_client() as client:
        states = [await client.read_flow_run_states(child.id) for child in many]
        while any(not state[-1].name.startswith("Cancel") for state in states) and time.time() - began < 10:
            await asyncio.sleep(0.1)
            states = [sorted(await client.read_flow_run_states(c.id), key=lambda s: s.timestamp) for c in many]
    asked = [min(s.timestamp for s in state if s.name == "Cancelling").timestamp() - began for state in states]
    assert max(asked) < 2
    await there.ended()
    assert there.state == "Cancelled"
    assert there.message.endswith("; no run of it goes on")
    assert [child.state_name for child in await there.of("many")] == ["Cancelled"] * 3
    assert "its pipeline" in ((await there.of("many"))[0].state.message or "")
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]
    assert await there.of("after") == []


async def test_a_clean_up_that_goes_on_is_not_cancelled(start: Start) -> None:
    there = await start(TEXT.replace("[601, 602, 603, 604, 605]", "[0]").replace("{n: 1}", "{n: 5}"))
    text = "the clean-up's run"
    after = await there.until(lambda them: any("step:after" in child.tags for child in them), "the step after")
    await JobRun(next(child for child in after if "step:after" in child.tags)).cancel()
    await there.until(lambda them: any("step:clean" in c.tags and c.state_name == "Running" for c in them), text)
    await there.run.cancel()
    await there.ended()
    assert there.state == "Cancelled"
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]


async def test_a_child_that_a_person_cancels_has_failed(start: Start) -> None:
    there = await start(TEXT)
    children = await there.until(_are_up, "three runs at once")
    await asyncio.gather(*(JobRun(child).cancel() for child in children if "step:many" in child.tags))
    await there.ended()
    assert there.state == "Failed"
    assert there.message.startswith("step 'many': 3 of 5 runs failed and 2 were not begun; the first is ")
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]


async def test_a_pipeline_in_a_process_of_its_own_is_told_by_a_signal(server: Server, served: str, mark: str) -> None:
    document = load_document(TEXT.replace("MARK", mark))
    await apply(document.jobs, work_pool=served)
    pipeline: Pipeline = document.pipelines[0]
    await pipeline.apply(work_pool=None)
    run = await pipeline.run()
    there = There(run)
    process = await _execute(run, server)
    try:
        await there.until(_are_up, "three runs at once", 90)
        await run.cancel()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    await there.run.refresh()
    assert there.state == "Cancelled"
    assert [child.state_name for child in await there.of("many")] == ["Cancelled"] * 3
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]


async def test_the_runs_of_a_pipeline_that_is_deleted_are_cancelled(start: Start, mark: str) -> None:
    there = await start(TEXT)
    await there.until(_are_up, "three runs at once")
    async with get_client() as client:
        await client.delete_flow_run(there.run.id)
        assert await there.children() == [], "Prefect forgets what a deleted run has started"
        chosen = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"pipeline:p-{mark}", "step:many"]))

        async def all_ended() -> bool:
            many = await client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=10)
            return [child.state_name for child in many] == ["Cancelled"] * 3

        # Prefect tells of no deletion: that is seen by looking, every 20 seconds.
        await until(all_ended, 60, "the end of its runs")


async def test_a_sweep_cancels_the_runs_of_pipelines_that_are_gone(mark: str, pool: str) -> None:
    # A sweep of all that is there would reach the pipelines of other tests.
    server = Server(f"swept-{mark}")
    await server.start()
    try:
        with server.used():
            async with workers_of(pool, PREFECT_API_URL=server.url) as start_worker:
                await start_worker()
                await _swept(server, mark, pool)
    finally:
        await server.kill()


async def _swept(server: Server, mark: str, pool: str) -> None:
    document = load_document(TEXT.replace("MARK", mark))
    await apply(document.jobs, work_pool=pool)
    await document.pipelines[0].apply(work_pool=None)
    crashed, deleted = [await document.pipelines[0].run() for _ in range(2)]
    processes = [await _execute(run, server) for run in (crashed, deleted)]
    for run in (crashed, deleted):
        await There(run).until(_are_up, "three runs at once", 90)
    for process in processes:
        process.kill()
        await process.wait()
    many = [child.id for run in (crashed, deleted) for child in await There(run).of("many")]
    async with get_client() as client:
        await client.set_flow_run_state(crashed.id, Cancelling(message="who cleans up is at work"), force=True)
        lines, _ = await sweep_now(["process"], "0s", True)
        assert not [line for line in lines if crashed.name in line or deleted.name in line]
        await client.delete_flow_run(deleted.id)
        await client.set_flow_run_state(crashed.id, Crashed(message="its process is gone"), force=True)
    lines, _ = await sweep_now(["process"], "0s", True)
    for run in (crashed, deleted):
        assert len([line for line in lines if f"{run.name}-many" in line and "would cancel" in line]) == 3
    await sweep_now(["process"], "0s", False)

    async def all_ended() -> bool:
        async with get_client() as client:
            return {(await client.read_flow_run(child)).state_name for child in many} == {"Cancelled"}

    await until(all_ended, 60, "the end of their runs")


async def test_a_pipeline_whose_process_is_gone_is_ended_from_outside(server: Server, served: str, mark: str) -> None:
    document = load_document(TEXT.replace("MARK", mark))
    await apply(document.jobs, work_pool=served)
    await document.pipelines[0].apply(work_pool=None)
    run = await document.pipelines[0].run()
    there = There(run)
    process = await _execute(run, server)
    await there.until(_are_up, "three runs at once", 90)
    process.kill()
    await process.wait()
    await run.cancel()
    told: list[str] = []
    await run.end(told.append, force=True)
    assert there.state == "Cancelled"
    assert f"{run.name}: 3 runs of its steps go on; cancelling them" in told
    assert there.message.endswith("for its worker did not answer; 3 runs of it were cancelled")

    async def all_ended() -> bool:
        return all(child.state_name == "Cancelled" for child in await there.of("many"))

    await until(all_ended, 60, "the end of its runs")


async def test_who_cancels_waits_for_a_clean_up_as_long_as_its_worker_lives(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "CHILDREN_SECONDS", 7.0)
    there = await start(TEXT.replace("{n: 1}", "{n: 12}"))
    await there.until(_are_up, "three runs at once")
    await there.run.cancel()
    told: list[str] = []
    await there.run.end(told.append)
    assert there.state == "Cancelled"
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]
    assert f"Waiting for {there.run.name}, whose worker is at work; with --force it is ended from here" in told


async def test_who_cancels_ends_a_pipeline_whose_worker_is_dead(
    start_worker: StartWorker, pool: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "CHILDREN_SECONDS", 7.0)
    document = load_document(TEXT.replace("MARK", mark))
    worker = await start_worker()
    await apply(document.jobs, document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    await there.until(_are_up, "three runs at once")
    await worker.kill()
    await there.run.cancel()
    told: list[str] = []
    async with asyncio.timeout(120):
        await there.run.end(told.append)
    assert there.state == "Cancelled"
    assert "Nobody carries it out: its worker is gone or does not answer" in told
    assert [child.state_name for child in await there.of("many")] == ["Cancelled"] * 3
    # Nobody was there who would leave a table: it is what was started.
    assert [(row["step"], row["state"]) for row in await there.run.table()] == [
        ("first", "Completed"),
        *[("many", "Cancelled")] * 3,
    ]


async def test_the_next_worker_ends_a_pipeline_that_was_cancelled_while_none_was_there(
    start_worker: StartWorker, pool: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By then the next worker is at the clean-up.
    monkeypatch.setattr(cancelling, "CHILDREN_SECONDS", 25.0)
    other = "  other-MARK: {command: ['true'], parameters: {n: {type: integer, default: 1}}}\npipelines:\n"
    text = TEXT.replace("pipelines:\n", other).replace("{n: 1}}\n", "{n: 35}}\n")
    text = text.replace("{job: sleep-MARK, needs: [many]}", "{job: other-MARK, needs: [many], parameters: {n: 2}}")
    later = "      later: {job: sleep-MARK, needs: [many], matrix: {n: [7, 8]}}\n      clean:"
    text = text.replace("      clean:", later)
    document = load_document(text.replace("MARK", mark))
    first = await start_worker()
    await apply(document.jobs, document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    await there.until(_are_up, "three runs at once")
    # What does not fit any more keeps nobody from cleaning up.
    await Job(name=f"other-{mark}", command=["true"]).apply(work_pool=pool)
    await first.kill()
    await there.run.cancel()
    assert there.state == "Cancelling"
    await start_worker()
    told: list[str] = []
    await there.run.end(told.append)
    assert there.state == "Cancelled"
    assert [child.state_name for child in await there.of("many")] == ["Cancelled"] * 3
    assert [child.state_name for child in await there.of("clean")] == ["Completed"]
    assert any("whose worker is at work" in line for line in told)
    # It leaves what one that was cancelled under its worker leaves.
    assert there.message.endswith("; no run of it goes on")
    assert f"Run ended: {there.message}" in await there.said()
    assert [(row["step"], row["outcome"].partition(":")[0]) for row in await there.run.table()] == [
        ("first", "succeeded"),
        *[("many", "cancelled")] * 3,
        *[("many", "not begun")] * 2,
        ("after", "not begun, for the pipeline was cancelled"),
        ("later", "not begun, for the pipeline was cancelled"),
        ("clean", "succeeded"),
    ]
    _, picture = await there.artifacts()
    assert "0 of 5 succeeded" in str(picture.data)
