"""A pipeline's run that is run again, or taken up by another worker, does only what did not succeed.

PREFECT_JOBS_AGAIN=200 lets it die in the middle of that many runs; the suite has fewer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pipelines import There
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Scheduled
from reach import until
from servers import Server
from supervisors import kill, start_supervisor, supervise
from workers import StartWorker

from prefect_jobs import Pipeline, apply
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.document import load_document

Start = Callable[..., Awaitable[Any]]

RUNS = int(os.environ.get("PREFECT_JOBS_AGAIN", "7"))
AT_ONCE = 2 if RUNS < 20 else 20
FAILS = 1000

# Each run writes its number, and fails as long as no file says that it may succeed.
JOBS = """
jobs:
  once-MARK:
    command: [sh, -c, 'echo $n >> "$FOLDER/ran"; sleep ${SLEEP:-0}; test $n -lt 1000 || test -e "$FOLDER/may"']
    env: {FOLDER: "PLACE"}
    parameters: {n: {type: integer, default: 1}}
"""


async def _retry(there: There) -> None:
    """As the Retry of the UI does."""
    async with get_client() as client:
        await client.set_flow_run_state(there.run.id, Scheduled(name="AwaitingRetry"), force=True)
    await there.run.refresh()


def _ran(folder: Path) -> list[int]:
    return sorted(map(int, (folder / "ran").read_text().split()))


async def test_what_succeeded_is_not_run_again(start: Start, tmp_path: Path) -> None:
    text = (
        JOBS
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: once-MARK, matrix: {n: [1, 1000, 2, 1001]}, on_failure: {succeed_at_least: 0.9}}
      last: {job: once-MARK, needs: [fit], parameters: {n: 3}}
      clean: {job: once-MARK, needs: [last], always: true, parameters: {n: 4}}
"""
    )
    there = await (await start(text.replace("PLACE", str(tmp_path)))).ended()
    assert there.state == "Failed"
    assert _ran(tmp_path) == [1, 2, 4, 1000, 1001]
    (tmp_path / "may").touch()
    await _retry(there)
    await there.ended()
    assert (there.state, there.message) == ("Completed", "fit succeeded, last succeeded, clean succeeded")
    # Cleaning up belongs to each time.
    assert _ran(tmp_path) == [1, 2, 3, 4, 4, 1000, 1000, 1001, 1001]
    await _retry(there)
    await there.ended()
    assert there.state == "Completed"
    assert _ran(tmp_path) == [1, 2, 3, 4, 4, 4, 1000, 1000, 1001, 1001]


async def test_what_succeeded_and_left_nothing_is_run_again_where_it_is_needed(start: Start, tmp_path: Path) -> None:
    folder, store = tmp_path / "folder", tmp_path / "store"
    folder.mkdir()
    name = f"state-{uuid4().hex[:8]}"
    await ObjectStore(url=f"file://{store}").save(name)
    text = (
        JOBS.replace("    parameters:", f"    store: {name}\n    parameters:")
        + """
pipelines:
  p-MARK:
    steps:
      fit: {job: once-MARK, matrix: {n: [1, 2]}}
      last: {job: once-MARK, needs: [fit], parameters: {n: 1000}}
"""
    )
    there = await (await start(text.replace("PLACE", str(folder)))).ended()
    assert there.state == "Failed"
    lost = (await there.of("fit"))[1]
    shutil.rmtree(store / lost.parameters["job"]["template"]["name"] / str(lost.id))
    (folder / "may").touch()
    await _retry(there)
    await there.ended()
    assert (there.state, there.message) == ("Completed", "fit succeeded, last succeeded")
    assert _ran(folder) == [1, 2, 2, 1000, 1000]
    assert "fit: the outputs of 1 runs are gone from the store" in await there.said()


# -- by itself

RETRIED = """
  clean-MARK: {command: [sh, -c, 'echo 4 >> "$FOLDER/ran"; touch "$FOLDER/may"'], env: {FOLDER: "PLACE"}}
pipelines:
  p-MARK:
    retries: {failures: 2, delay: 1s}
    concurrency: 1
    steps:
      fit: {job: once-MARK, matrix: {n: [1, 1000, 2]}, on_failure: {succeed_at_least: 0.9}}
      last: {job: once-MARK, needs: [fit], parameters: {n: 3}}
      clean: {job: clean-MARK, needs: [last], always: true}
"""


async def _states(there: There) -> list[State[Any]]:
    async with get_client() as client:
        states = await client.read_flow_run_states(there.run.id)
    return sorted(states, key=lambda state: state.timestamp)


async def test_a_pipeline_begins_again_by_itself_what_did_not_succeed(
    deploy: Callable[[str], Awaitable[Pipeline]], tmp_path: Path
) -> None:
    pipeline = await deploy((JOBS.rstrip() + RETRIED).replace("PLACE", str(tmp_path)))
    there = await There(await pipeline.run()).ended()
    assert (there.state, there.message) == ("Completed", "fit succeeded, last succeeded, clean succeeded")
    assert _ran(tmp_path) == [1, 2, 3, 4, 4, 1000, 1000]
    assert "Failed; retry 1 of 2 in 1 s" in await there.said()
    (retrying,) = [state for state in await _states(there) if state.name == "Retrying"]
    assert (retrying.message or "").startswith("retry 1 of 2 in 1 s: step 'fit': 1 of 3 runs failed")
    assert [row["outcome"] for row in await there.run.table()] == ["succeeded"] * 5
    # Its place within the limit was kept until its end, and no longer.
    assert (await There(await pipeline.run()).ended(60)).state == "Completed"


async def test_it_fails_when_no_retry_is_left_and_a_person_who_runs_it_again_gives_it_new_ones(
    start: Start, tmp_path: Path
) -> None:
    text = JOBS + "\npipelines: {p-MARK: {retries: 1, steps: {fit: {job: once-MARK, parameters: {n: 1000}}}}}"
    there = await (await start(text.replace("PLACE", str(tmp_path)))).ended()
    assert there.state == "Failed"
    assert _ran(tmp_path) == [1000] * 2
    await _retry(there)
    await there.ended()
    assert there.state == "Failed"
    assert _ran(tmp_path) == [1000] * 4


async def test_one_that_waits_for_its_retry_is_cancelled_at_once(start: Start, tmp_path: Path) -> None:
    text = JOBS + (
        "\npipelines: {p-MARK: {retries: {failures: 1, delay: 1h}, "
        "steps: {fit: {job: once-MARK, parameters: {n: 1000}}}}}"
    )
    there = await start(text.replace("PLACE", str(tmp_path)))
    await _waits(there)
    await there.run.cancel()
    await there.ended(30)
    assert there.state == "Cancelled"
    assert _ran(tmp_path) == [1000]


async def _waits(there: There) -> None:
    async def is_so() -> bool:
        await there.run.refresh()
        return there.state == "Retrying"

    await until(is_so, 90, "the wait for a retry")


@pytest.mark.timeout(0)
async def test_who_takes_it_up_gives_it_no_more_retries(
    start_worker: StartWorker, pool: str, mark: str, tmp_path: Path
) -> None:
    text = JOBS + (
        "\npipelines: {p-MARK: {retries: {failures: 1, delay: 1h}, "
        "steps: {fit: {job: once-MARK, matrix: {n: [1, 1000]}, on_failure: {succeed_at_least: 0.9}}}}}"
    )
    document = load_document(text.replace("MARK", mark).replace("PLACE", str(tmp_path)))
    first = await start_worker()
    await apply(document.jobs, document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    await _waits(there)
    await first.kill()
    await start_worker()
    await there.ended()
    assert there.state == "Failed"
    # The one who takes it up begins at once what was waited for.
    assert _ran(tmp_path) == [1, 1000, 1000]


# -- after a worker has died

# One of the first fails.
VALUES = [1, FAILS, *range(2, RUNS + 1)]
MANY = f"""
pipelines:
  p-MARK:
    steps:
      fit:
        {{job: once-MARK, matrix: {{n: {VALUES}}}, on_failure: continue, at_once: {AT_ONCE}, env: {{SLEEP: 2}}}}
      last: {{job: once-MARK, needs: [fit], parameters: {{n: {RUNS + 1}}}}}
"""


async def _half_have_ended(there: There) -> None:
    half = len(VALUES) // 2
    await there.until(
        lambda them: sum(child.state_name in ("Completed", "Failed") for child in them) >= half, "half", 60 + 2 * RUNS
    )


@pytest.mark.timeout(0)
async def test_another_worker_takes_it_up_and_no_run_happens_twice(
    start_worker: StartWorker, pool: str, mark: str, tmp_path: Path
) -> None:
    document = load_document((JOBS + MANY).replace("MARK", mark).replace("PLACE", str(tmp_path)))
    first = await start_worker("--limit", str(AT_ONCE))
    await apply(document.jobs, document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    await _half_have_ended(there)
    await first.kill()
    await asyncio.sleep(1)
    await start_worker("--limit", str(AT_ONCE))
    await there.ended(180 + 2 * RUNS)
    assert (there.state, there.message) == ("Completed", "fit failed, last succeeded")
    # The one that failed had its end before the worker died: it is the pipeline's to say what that means.
    assert _ran(tmp_path) == [*range(1, RUNS + 2), FAILS]
    children = await there.children()
    assert len(children) == len(VALUES) + 1
    assert all(child.run_count <= 2 for child in children)


@pytest.mark.timeout(0)
async def test_one_whose_process_dies_under_a_stock_worker_is_run_again_and_no_run_happens_twice(
    server: Server, served: str, pool: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    document = load_document((JOBS + MANY).replace("MARK", mark).replace("PLACE", str(tmp_path)))
    await apply(document.jobs, work_pool=served)
    # A pool without a worker: the process that looks after the pipeline is the test's own.
    await apply([], document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    process = await start_supervisor(there.run)
    await _half_have_ended(there)
    await kill(process)
    await _retry(there)
    async with asyncio.timeout(180 + 2 * RUNS):
        await supervise(there.run)
    await there.run.refresh()
    # What has failed before is run again, and fails again.
    assert (there.state, there.message) == ("Completed", "fit failed, last succeeded")
    assert _ran(tmp_path) == [*range(1, RUNS + 2), FAILS, FAILS]
    assert {child.run_count for child in await there.children()} == {1}


async def test_a_worker_with_one_place_runs_a_pipeline_and_its_runs(
    start_worker: StartWorker, pool: str, mark: str, tmp_path: Path
) -> None:
    document = load_document(
        (JOBS + "\npipelines: {p-MARK: {steps: {fit: {job: once-MARK, matrix: {n: [1, 2, 3]}, env: {SLEEP: 1}}}}}")
        .replace("MARK", mark)
        .replace("PLACE", str(tmp_path))
    )
    await start_worker("--limit", "1")
    await apply(document.jobs, document.pipelines, work_pool=pool)
    pipelines = [There(await document.pipelines[0].run()) for _ in range(2)]
    for there in pipelines:
        assert (await there.ended()).state == "Completed"
    runs = [run for there in pipelines for run in await there.of("fit")]
    times = sorted((run.start_time, run.end_time) for run in runs)
    # One after the other.
    assert all(before[1] <= after[0] for before, after in pairwise(times)), times


async def test_a_worker_that_runs_once_runs_a_pipeline_to_its_end(
    start_worker: StartWorker, pool: str, mark: str, tmp_path: Path
) -> None:
    steps = "fit: {job: once-MARK, matrix: {n: [1, 2]}}, last: {job: once-MARK, needs: [fit], parameters: {n: 3}}"
    text = (JOBS + f"\npipelines: {{p-MARK: {{steps: {{{steps}}}}}}}").replace("MARK", mark)
    document = load_document(text.replace("PLACE", str(tmp_path)))
    await apply(document.jobs, document.pipelines, work_pool=pool)
    there = There(await document.pipelines[0].run())
    worker = await start_worker("--run-once", seconds=0)
    assert await worker.ended() == 0
    await there.run.refresh()
    assert there.state == "Completed"
    assert _ran(tmp_path) == [1, 2, 3]
