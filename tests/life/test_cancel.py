"""Cancelled in any phase and in any way: the container is gone in time, the run ends Cancelled, and nothing follows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cancelling import GRACE, LONG, PHASES, STUBBORN, WAYS, Place, left_by, measure, running
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import TaskRunSort
from prefect.states import Completed, Pending
from reach import ended, first_line, lines, until
from supervisors import kill, start_supervisor
from terminal import Terminal

from prefect_jobs import Job, JobRun, Process, Reason
from prefect_jobs.deployments import cancelling
from prefect_jobs.deployments.cancelling import by_whom
from prefect_jobs.deployments.cli import app

# The promise is 5 s beyond the grace period; a machine that is busy with other tests takes longer.
IN_TIME = GRACE + float(os.environ.get("PREFECT_JOBS_CANCELS_SECONDS", "20"))
# Each phase, way and infrastructure at least once.
COVERED = [
    ("running", "prefect-jobs cancel", "process"),
    ("ignoring_sigterm", "prefect flow-run cancel", "docker"),
    ("behind_a_limit", "api", "process"),
    ("pulling", "interface", "docker"),
    ("created_and_not_started", "handle", "docker"),
    ("waiting_for_a_retry", "interface", "docker"),
    ("suspended", "interface", "docker"),
    ("between_quick_retries", "interface", "process"),
    ("process_on_its_way", "handle", "docker"),
    ("process_importing", "interface", "process"),
    ("far_ahead", "handle", "process"),
]
ONLY_DOCKER = ("pulling", "created_and_not_started")
# Its first attempt, or the next, may start in the moment of the cancellation.
STARTING = (
    "process_on_its_way",
    "process_importing",
    "flow_begins",
    "created_and_not_started",
    "between_quick_retries",
    "just_ending",
)
NEVER_BEGUN = ("far_ahead", "without_worker", "behind_a_limit", "process_on_its_way")


def cases(number: int) -> list[tuple[str, str, str]]:
    """As many as that: the covering ones, then more of all phases in turn."""
    chosen, phases = random.Random(number), itertools.cycle(PHASES)
    found = list(COVERED)
    while len(found) < number:
        phase = next(phases)
        place = "docker" if phase in ONLY_DOCKER else chosen.choice(["docker", "process"])
        # Of a run that has not begun, Prefect's newer interface leaves the end to Prefect's own clock.
        ways = ["handle", "prefect-jobs cancel"] if phase in NEVER_BEGUN else list(WAYS)
        found.append((phase, chosen.choice(ways), place))
    return found[:number]


@pytest.mark.timeout(1800)
async def test_runs_that_are_cancelled_in_any_phase_and_way_end_cancelled_and_leave_nothing(
    stock_worker: str, busybox: str
) -> None:
    at_once = asyncio.Semaphore(int(os.environ.get("PREFECT_JOBS_CANCELS_AT_ONCE", "4")))
    wrong = []

    async def one(phase: str, way: str, infrastructure: str) -> None:
        async with at_once, PHASES[phase](Place(stock_worker, infrastructure, busybox)) as run:
            attempts = sum(line == "up" for line in await lines(run))
            done = await measure(run, WAYS[way])
        row = f"{phase:24} {way:24} {infrastructure:8} {done.gone:5.1f} {done.final:5.1f} {done.state}: {done.message}"
        print(row, done.left or "", flush=True)
        ended_by_itself = phase == "just_ending" and done.state == "Completed"
        more = done.attempts - attempts > (phase in STARTING)
        if more or done.left or done.gone > IN_TIME or not (done.state == "Cancelled" or ended_by_itself):
            wrong.append((row, done))

    chosen = cases(int(os.environ.get("PREFECT_JOBS_CANCELS", str(len(COVERED)))))
    await asyncio.gather(*(one(*case) for case in chosen))
    assert wrong == []


async def test_a_run_under_serve_is_cancelled_as_under_a_worker(prefect_api: str, busybox: str, tmp_path: Path) -> None:
    keys = {"infrastructure": "docker", "image": busybox, "command": LONG, "grace_period": f"{GRACE:g}s"}
    job = Job.model_validate({"name": f"served-{uuid4().hex[:6]}", **keys})
    script = tmp_path / "serving.py"
    script.write_text(
        "import prefect\nfrom prefect_jobs import Job\n"
        f"prefect.serve(Job.model_validate({{'name': {job.name!r}, **{keys!r}}}).to_deployment())\n"
    )
    await job.apply(work_pool=None)
    with (tmp_path / "log").open("wb") as log:
        serving = await asyncio.create_subprocess_exec(sys.executable, script, stdout=log, stderr=log)
        try:
            run = await job.run()
            await first_line(run)
            done = await measure(run, WAYS["interface"])
        finally:
            serving.terminate()
            await serving.wait()
    assert (done.state, done.left, done.message) == (
        "Cancelled",
        [],
        "cancelled through Prefect; no container of it is left",
    )
    assert done.gone < IN_TIME


async def test_a_cancellation_that_came_before_its_worker_listened_is_carried_out_by_the_next(
    prefect_api: str, busybox: str
) -> None:
    run = await Place(None, "process", busybox).start(LONG)
    async with get_client() as client:  # As a worker does, which hears of nothing before the flow's process is there.
        await client.set_flow_run_state(run.id, Pending())
    await WAYS["interface"](run)
    assert (await run.refresh()).state == "Cancelling"
    await run.cancel()
    assert (run.state, run.flow_run.state.message) == (
        "Cancelled",
        f"{by_whom('JobRun.cancel')}; it had not begun",
    )


async def test_a_run_whose_worker_is_gone_hears_of_its_cancellation_itself(prefect_api: str, busybox: str) -> None:
    run, supervisor = await supervised(Place(None, "process", busybox), STUBBORN)
    measured = await measure(run, WAYS["handle"])
    await asyncio.wait_for(supervisor.wait(), 30)
    assert measured.state == "Cancelled"
    assert measured.gone < IN_TIME + 1, measured
    assert measured.left == []
    assert measured.message == f"{by_whom('JobRun.cancel')}; no container of it is left"


@pytest.fixture
async def orphan(prefect_api: str, busybox: str, request: pytest.FixtureRequest) -> JobRun:
    """A run whose supervisor was killed; its container writes a last line when it is told to end."""
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    run, supervisor = await supervised(Place(None, request.param, busybox), ["sh", "-c", script])
    await kill(supervisor)
    return run


@pytest.mark.parametrize("orphan", ["process", "docker"], indirect=True)
async def test_a_run_whose_supervisor_is_dead_is_ended_by_the_command_line(
    orphan: JobRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cancelling, "_SUPERVISOR_SECONDS", 1.0 - GRACE)
    await asyncio.to_thread(cancel_by_command, str(orphan.id), expect=0)
    await orphan.refresh()
    assert orphan.state == "Cancelled"
    assert orphan.flow_run.state is not None
    assert f"{by_whom('prefect-jobs cancel')}; ended from" in str(orphan.flow_run.state.message)
    assert [line for line in await lines(orphan) if line != "Terminated"] == ["up", "bye"]
    assert left_by(orphan.id) == []
    said = capfd.readouterr().err.splitlines()
    assert said[0] == f"Cancelling {orphan.name}; its worker is given 1 s to stop the container"
    assert said[1] == "Nobody carries it out: its worker is gone or does not answer"
    await asyncio.to_thread(cancel_by_command, str(orphan.id), expect=0)
    assert capfd.readouterr().err == f"{orphan.name} has ended already: Cancelled\n"


@pytest.mark.parametrize("orphan", ["process"], indirect=True)
async def test_a_container_that_is_not_found_from_here_is_not_said_to_be_gone(
    orphan: JobRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cancelling, "_SUPERVISOR_SECONDS", 1.0 - GRACE)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(Process, "folder", tmp_path)
        await asyncio.to_thread(cancel_by_command, str(orphan.id), expect=1)
        said = capfd.readouterr().err
        assert f"{orphan.name} is still Cancelling: no container of it was found. Cancel it again where" in said
        assert (await orphan.refresh()).state == "Cancelling"
        await asyncio.to_thread(cancel_by_command, str(orphan.id), "--force", expect=0)
    assert (await orphan.refresh()).state == "Cancelled"
    assert "no container of it was found" in str(orphan.flow_run.state and orphan.flow_run.state.message)
    async with Process().engine() as engine:
        await engine.release(orphan.id)


async def test_a_run_that_has_ended_otherwise_is_not_cancelled(
    prefect_api: str, busybox: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = await Place(None, "process", busybox).start(["true"])
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Completed(message="exit code 0"), force=True)
    await asyncio.to_thread(cancel_by_command, str(run.id), expect=1)
    assert capfd.readouterr().err == f"{run.name} has ended already: Completed\n"
    assert (await run.cancel()).state == "Completed"


def cancel_by_command(*words: str, expect: int) -> None:
    """Give the command in this process."""
    with pytest.raises(SystemExit) as ended_with:
        app(["cancel", *words])
    assert ended_with.value.code == expect


async def test_a_flow_process_that_is_killed_while_its_container_stops_leaves_the_rest_to_a_successor(
    prefect_api: str, busybox: str
) -> None:
    script = "trap 'sleep 4; echo saved; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    run, supervisor = await supervised(Place(None, "docker", busybox), ["sh", "-c", script], grace_period="40s")
    await run.cancel()

    await until(partial(is_stopping, run), 20, "the stop")
    await asyncio.sleep(0.5)
    await kill(supervisor)  # As Prefect's runner does 30 s after it has told the process to end.
    assert left_by(run.id)
    await ended(run, 30)
    assert (run.state, await lines(run), left_by(run.id)) == ("Cancelled", ["up", "saved"], [])


async def test_a_worker_that_comes_late_does_not_shorten_the_grace_period(prefect_api: str, busybox: str) -> None:
    script = "trap 'sleep 2; echo saved; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    run, supervisor = await supervised(Place(None, "docker", busybox), ["sh", "-c", script], grace_period="15s")
    await run.cancel()
    await until(partial(is_stopping, run), 20, "the stop")
    supervisor.terminate()
    await asyncio.wait_for(supervisor.wait(), 30)
    await run.refresh()
    assert (run.state, await lines(run), left_by(run.id)) == ("Cancelled", ["up", "saved"], [])


async def test_a_process_that_is_told_to_end_again_and_again_stops_its_container_first(
    prefect_api: str, busybox: str
) -> None:
    script = "trap 'sleep 2; echo saved; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    run, supervisor = await supervised(Place(None, "docker", busybox), ["sh", "-c", script], grace_period="15s")
    for _ in range(4):
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
        await asyncio.sleep(0.4)
    await asyncio.wait_for(supervisor.wait(), 30)
    assert await lines(run) == ["up", "saved"]
    assert left_by(run.id) == []


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
async def test_a_container_that_never_stops_writing_is_stopped_like_any_other(
    infrastructure: str, prefect_api: str, busybox: str
) -> None:
    script = "trap 'exit 1' TERM; i=0; while :; do echo $i; i=$((i+1)); done"
    logging = {"max_lines": 3000}
    run, supervisor = await supervised(Place(None, infrastructure, busybox), ["sh", "-c", script], logging=logging)
    await run.cancel()
    supervisor.terminate()  # In the middle of a line, most likely.
    await asyncio.wait_for(supervisor.wait(), 40)
    await run.refresh()
    assert (run.state, left_by(run.id)) == ("Cancelled", [])
    assert [outcome.reason for outcome in run.attempts] == [Reason.CANCELLED]
    numbers = [int(line) for line in await lines(run) if line.isdecimal()]
    assert numbers == list(range(len(numbers)))
    async with get_client() as client:
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        task_runs = await client.read_task_runs(flow_run_filter=ours, sort=TaskRunSort.END_TIME_DESC, limit=9)
    assert {(each.name, each.state_name) for each in task_runs} == {
        ("attempts", "Cancelled"),
        ("attempt 1", "Cancelled"),
    }


async def supervised(place: Place, command: list[str], **keys: Any) -> tuple[JobRun, asyncio.subprocess.Process]:
    """A run whose container is up, and the process that looks after it."""
    run = await place.start(command, **keys)
    supervisor = await start_supervisor(run)
    await first_line(run)
    return run, supervisor


async def is_stopping(run: JobRun) -> bool:
    return any("Stopping the container" in log.message for log in await run.logs())


@pytest.mark.parametrize("infrastructure", ["process"])
async def test_ctrl_c_of_a_watched_run_asks_whether_to_watch_on_to_leave_or_to_cancel(
    infrastructure: str, stock_worker: str, busybox: str
) -> None:
    async with running(Place(stock_worker, infrastructure, busybox)) as run:
        with Terminal("prefect-jobs", "watch", run.name) as terminal:
            await terminal.shows(" up\r\n")
            for answer, then in (("?", "keep [w]atching?"), ("w", "[Running]")):
                if answer == "?":
                    terminal.type("\x03")
                    await terminal.shows("keep [w]atching?")
                terminal.type(f"{answer}\n")
                await terminal.shows(then)
            terminal.type("\x03")
            await terminal.shows("[l]eave it running")
            terminal.type("l\n")
            await terminal.shows("The run goes on")
            assert await terminal.ended() == 130
            assert terminal.shown.count(" up\r\n") == 1
        assert (await run.refresh()).state == "Running"
        with Terminal("prefect-jobs", "watch", run.name) as terminal:
            await terminal.shows(" up\r\n")
            terminal.type("\x03")
            await terminal.shows("[c]ancel it")
            terminal.type("c\n")
            await terminal.shows("Cancelling")
            assert await terminal.ended() == 130
        await run.refresh()
        assert (run.state, left_by(run.id)) == ("Cancelled", [])
        assert by_whom("Ctrl-C of prefect-jobs") in str(run.flow_run.state and run.flow_run.state.message)
