"""Jobs under Prefect's own process worker and `prefect.serve`: whatever starts a run, the container does as asked."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient
from reach import BIN, Command, Execute, containers_of, ended, first_line, lines, runs_of, until

from prefect_jobs import Job, JobRun, Parameter, Schedule

GREET = ["sh", "-c", "echo hello $who"]
WHO = {"who": Parameter(default="world", enum=["world", "moon", "mars"])}


async def test_prefects_own_command_starts_a_run_and_its_parameter_reaches_the_container(
    stock_worker: str, unique: str, command: Command
) -> None:
    job = Job(name=unique, command=GREET, parameters=WHO)
    await job.apply(work_pool=stock_worker)

    refused = command("prefect", "deployment", "run", f"job/{unique}", "-p", "who=pluto", expect=1)
    assert "'who'" in refused.stdout + refused.stderr
    assert "pluto" in refused.stdout + refused.stderr
    assert await runs_of(unique) == []

    command("prefect", "deployment", "run", f"job/{unique}", "-p", "who=mars")
    [flow_run] = await runs_of(unique)
    run = await ended(JobRun(flow_run))
    assert (run.state, await lines(run)) == ("Completed", ["hello mars"])


async def test_a_cron_tick_starts_one_run_however_often_the_job_is_applied(
    stock_worker: str, unique: str, api: PrefectClient
) -> None:
    every_minute = Schedule(cron="* * * * *", parameters={"who": "moon"})
    job = Job(name=unique, command=GREET, parameters=WHO, schedules=[every_minute])
    now = datetime.now(UTC)
    tick = now.replace(second=0, microsecond=0) + timedelta(minutes=2 if now.second > 50 else 1)

    async def at_the_tick() -> list[JobRun]:
        return [JobRun(each) for each in await runs_of(unique) if each.expected_start_time == tick]

    async def waits_for_the_tick() -> bool:
        return len(await at_the_tick()) == 1

    async def has_ended() -> bool:
        runs = await at_the_tick()
        return bool(runs) and all(run.flow_run.state and run.flow_run.state.is_final() for run in runs)

    await job.apply(work_pool=stock_worker)
    await until(waits_for_the_tick, 10, "the scheduled run")
    assert (await job.apply(work_pool=stock_worker)).what == "unchanged"
    # A change just before the tick: the worker has taken the run already, or will find its successor.
    await asyncio.sleep((tick - datetime.now(UTC)).total_seconds() - 3)
    changed = job.model_copy(update={"description": "Greets"})
    assert (await changed.apply(work_pool=stock_worker)).what == "updated"
    await until(has_ended, 60, "the run of the tick")
    assert (await changed.apply(work_pool=stock_worker)).what == "unchanged"

    [run] = await at_the_tick()
    assert (run.state, await lines(run)) == ("Completed", ["hello moon"])

    removed = changed.model_copy(update={"schedules": []})
    [detail] = (await removed.apply(work_pool=stock_worker)).details[-1:]
    assert re.fullmatch(r"schedule cron-\S+ removed", detail)
    await asyncio.sleep(3)  # The scheduler looks every second.
    later = [
        each for each in await runs_of(unique) if each.expected_start_time > datetime.now(UTC) + timedelta(minutes=1)
    ]
    assert later == []
    assert await api.read_deployment_schedules((await api.read_deployment_by_name(f"job/{unique}")).id) == []


async def test_a_run_that_waits_while_its_job_is_given_other_parameters_runs_as_it_was_started(
    execute: Execute, unique: str
) -> None:
    job = Job(name=unique, command=GREET, parameters=WHO)
    await job.apply()
    run = await job.run(who="mars")
    renamed = Job(name=unique, command=["sh", "-c", "echo $whom"], parameters={"whom": Parameter(default="you")})
    assert (await renamed.apply()).what == "updated"
    assert (await renamed.apply()).what == "unchanged"

    await execute(run)
    assert (run.state, await lines(run)) == ("Completed", ["hello mars"])


async def test_python_starts_runs_with_and_without_an_event_loop(
    stock_worker: str, unique: str, command: Command, tmp_path: Path
) -> None:
    job = Job(name=unique, command=GREET, parameters=WHO)
    await job.apply(work_pool=stock_worker)
    awaited = await job.run(who="moon", run_name=f"{unique}-awaited", run_tags=["lunar"])

    script = tmp_path / "script.py"
    script.write_text(
        "from prefect_jobs import Job, Parameter\n"
        f"job = Job(name={unique!r}, command={GREET!r}, parameters={{'who': Parameter(default='world')}})\n"
        "run = job.run(who='mars').wait()\n"
        "print(run.state, run.exit_code, run.outcome.reason)\n"
        "print(*[log.message for log in run.logs()], sep='\\n')\n"
    )
    printed = command("python", script).stdout.splitlines()
    assert printed[0] == "Completed 0 succeeded"
    assert "hello mars" in printed

    await ended(awaited)
    assert (awaited.name, awaited.exit_code, await lines(awaited)) == (f"{unique}-awaited", 0, ["hello moon"])
    assert "lunar" in awaited.flow_run.tags


async def test_run_with_watch_prints_the_containers_lines_and_ends_with_its_exit_code(
    stock_worker: str, unique: str, busybox: str, command: Command
) -> None:
    job = Job(
        name=unique, infrastructure="docker", image=busybox, command=["sh", "-c", "echo out; echo err >&2; exit 7"]
    )
    await job.apply(work_pool=stock_worker)

    watched = command("prefect-jobs", "run", unique, "--watch", expect=7)

    texts = [line.partition(" ")[2] for line in watched.stdout.splitlines()]
    assert (texts.count("out"), texts.count("err")) == (1, 1)
    assert "[Failed]" in watched.stderr
    assert "exit code 7\nerr" in watched.stderr
    [flow_run] = await runs_of(unique)
    assert flow_run.state is not None
    assert (flow_run.state.name, flow_run.state.message) == ("Failed", "exit code 7\nerr")


@pytest.mark.skipif(
    os.environ.get("PREFECT_JOBS_TEST_WORKER") == "prefect-jobs",
    reason="a worker of the type prefect-jobs has no process for each flow that could be told to end",
)
@pytest.mark.parametrize("infrastructure", ["docker", "process"])
async def test_a_flow_process_that_is_told_to_end_takes_its_container_along(
    infrastructure: str,
    stock_worker: str,
    unique: str,
    busybox: str,
) -> None:
    job = Job(
        name=unique,
        infrastructure=infrastructure,
        image=busybox,
        command=["sh", "-c", "echo $$; exec sleep 300"],
        grace_period="1s",
    )
    await job.apply(work_pool=stock_worker)
    run = await job.run()

    inside = int(await first_line(run))
    await run.refresh()
    pid = int(str(run.flow_run.infrastructure_pid).rpartition(":")[2])
    assert containers_of(run.id) if infrastructure == "docker" else _is_alive(inside)

    os.kill(pid, signal.SIGTERM)
    await ended(run, 40)
    assert run.state == "Crashed", run.flow_run.state
    assert containers_of(run.id) == []
    assert infrastructure == "docker" or not _is_alive(inside)

    async def is_gone() -> bool:
        return not _is_alive(pid)

    await until(is_gone, 30, "the end of the flow's process")


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


async def test_ten_runs_at_once_on_the_default_database_all_end_right(
    execute: Execute, unique: str, busybox: str
) -> None:
    job = Job(
        name=unique,
        infrastructure="docker",
        image=busybox,
        command=["sh", "-c", "echo number $number; sleep 1; exit $((number % 2))"],
        parameters={"number": Parameter(type="integer")},
    )
    await job.apply()
    runs: list[JobRun] = [await job.run(number=number) for number in range(10)]
    async with asyncio.timeout(120):
        await asyncio.gather(*(execute(run) for run in runs))

    assert [run.state for run in runs] == ["Completed", "Failed"] * 5
    assert [run.outcome and run.outcome.exit_code for run in runs] == [0, 1] * 5
    assert [await lines(run) for run in runs] == [[f"number {number}"] for number in range(10)]
    assert [containers_of(run.id) for run in runs] == [[]] * 10


@pytest.fixture
def serving(unique: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script that serves a job, running."""
    script = tmp_path / "serving.py"
    script.write_text(
        "import prefect\n"
        "from prefect_jobs import Job, Parameter, Schedule\n"
        f"job = Job(name={unique!r}, command={GREET!r}, parameters={{'who': Parameter(default='world')}},\n"
        "          schedules=[Schedule(cron='0 8 * * *', parameters={'who': 'moon'})])\n"
        "prefect.serve(job.to_deployment())\n"
    )
    process = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
    )
    yield process
    process.terminate()
    process.wait(30)


async def test_serve_runs_a_job_without_a_worker_and_serving_it_again_changes_nothing(
    serving: subprocess.Popen[bytes], unique: str, api: PrefectClient, tmp_path: Path
) -> None:
    async def is_served() -> bool:
        with suppress(Exception):
            return bool(await api.read_deployment_by_name(f"job/{unique}"))
        return False

    await until(is_served, 60, "the deployment")
    before = await api.read_deployment_by_name(f"job/{unique}")
    run = await Job(name=unique, command=GREET).run(who="mars")
    await ended(run)
    assert (run.state, await lines(run), before.work_pool_name) == ("Completed", ["hello mars"], None)

    again = subprocess.Popen([BIN / "python", tmp_path / "serving.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert again.stdout is not None
        await asyncio.to_thread(next, (line for line in again.stdout if "being served" in line))
    finally:
        again.terminate()
        again.wait(30)
    after = await api.read_deployment_by_name(f"job/{unique}")
    assert after.model_dump(exclude={"updated", "last_polled", "status"}) == before.model_dump(
        exclude={"updated", "last_polled", "status"}
    )
