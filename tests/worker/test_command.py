"""How a worker of this project's type is started, and what its options do."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from ports import free_port
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled
from reach import BIN, ended, first_line, lines
from workers import worker

from prefect_jobs import Job, JobRun

LONG = ["sh", "-c", "echo up; sleep 300"]


@pytest.fixture
def name() -> str:
    """The name of a job and of its work pool, which no other test has."""
    return f"own-{uuid4().hex[:8]}"


async def applied(name: str, command: list[str], **keys: object) -> Job:
    job = Job.model_validate({"name": name, "command": command, "grace_period": "1s", **keys})
    await job.apply(work_pool=name)
    return job


async def test_the_pool_that_apply_makes_is_served_by_our_worker_without_naming_its_type(
    api: PrefectClient, name: str
) -> None:
    job = await applied(name, ["echo", "hello"])
    assert (await api.read_work_pool(name)).type == "prefect-jobs"
    run = await job.run()
    async with worker("prefect", "worker", "start", "--pool", name) as started:
        await ended(run)
        assert "Discovered type 'prefect-jobs'" in started.said
    assert (run.state, await lines(run)) == ("Completed", ["hello"])
    assert "supervisor " in str(run.flow_run.infrastructure_pid)


async def test_a_worker_makes_the_same_pool_as_apply(api: PrefectClient, name: str) -> None:
    await applied(name, ["true"])
    async with worker("prefect-jobs", "worker", "--pool", f"{name}-2"):
        made = await api.read_work_pool(f"{name}-2")
    assert (made.type, made.base_job_template) == ("prefect-jobs", (await api.read_work_pool(name)).base_job_template)


async def test_a_job_variable_that_would_do_nothing_is_refused_by_its_name(api: PrefectClient, name: str) -> None:
    job = await applied(name, ["true"])
    deployment = await api.read_deployment_by_name(f"job/{job.name}")
    with pytest.raises(PrefectHTTPStatusError, match="'image' was unexpected"):
        await api.create_flow_run_from_deployment(deployment.id, job_variables={"image": "busybox"})


async def test_once_runs_all_that_is_due_within_its_limit_and_ends_when_it_has_ended(
    api: PrefectClient, name: str
) -> None:
    job = await applied(name, ["sh", "-c", "sleep 1; echo done"])
    runs = [await job.run() for _ in range(3)]
    deployment = await api.read_deployment_by_name(f"job/{name}")
    tomorrow = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    later = JobRun(await api.create_flow_run_from_deployment(deployment.id, state=tomorrow))

    words = ("prefect-jobs", "worker", "--pool", name, "--run-once", "--limit", "2")
    async with worker(*words) as started:
        assert await started.ended() == 0, started.said
        assert started.said.splitlines()[-1].endswith("stopped!")

    assert [(await run.refresh()).state for run in (*runs, later)] == ["Completed"] * 3 + ["Scheduled"]
    # Two at once: the third began when one of them had ended.
    first, second, third = sorted((run.flow_run for run in runs), key=lambda each: each.start_time)
    assert third.start_time >= min(first.end_time, second.end_time)


async def test_once_takes_all_that_is_due_though_the_pool_has_fewer_places(name: str, api: PrefectClient) -> None:
    job = await applied(name, ["sleep", "1"])
    await api.update_work_pool(name, WorkPoolUpdate(concurrency_limit=1))
    runs = [await job.run() for _ in range(3)]
    async with worker("prefect-jobs", "worker", "--pool", name, "--run-once") as started:
        assert await started.ended() == 0, started.said
    assert [(await run.refresh()).state for run in runs] == ["Completed"] * 3


async def test_once_without_an_api_says_so_and_fails(prefect_api: str) -> None:
    away = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    words = ("prefect-jobs", "worker", "--run-once")
    async with worker(*words, env=away, started=False) as started:
        assert await started.ended() == 1, started.said
    assert "the work pool 'jobs' could not be asked for runs" in started.said


SLOW_TAKEOVER = """
import asyncio, sys
from prefect_jobs.deployments import cli, worker_adoption, worker_taking

async def look(self, client, lease):
    await asyncio.sleep(60)

worker_adoption.Adoption.look = look
worker_taking.CLAIM_SECONDS = 1.0
sys.argv = ["prefect-jobs", "worker", "--pool", sys.argv[1], "--run-once"]
cli.main()
"""


async def test_once_says_so_when_what_is_left_cannot_be_taken_over(name: str, prefect_api: str, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_TAKEOVER)
    await applied(name, ["true"])
    async with worker("python", script, name, started=False) as started:
        assert await started.ended() == 1, started.said
    assert f"what workers of the pool {name!r} that are gone have left could not be taken over" in started.said
    assert "Prefect's API does not answer" not in started.said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "--limit 0: a worker that may run nothing"),
        (["--name", "a/b"], "--name 'a/b': Prefect takes no worker's name with / or % in it"),
        (["--on-stop", "sleep"], "detach"),
        (["--prefetch-seconds", "-4"], "--prefetch-seconds -4: a run cannot be asked for after its time"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(words: list[str], message: str) -> None:
    done = subprocess.run([BIN / "prefect-jobs", "worker", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("PREFECT_API_URL", "", "a worker needs a Prefect server that others reach too"),
        ("PREFECT_WORKER_WEBSERVER_PORT", "abc", "PREFECT_WORKER_WEBSERVER_PORT: Prefect cannot read this setting: "),
        ("PREFECT_WORKER_WEBSERVER_PORT", "taken", "the worker cannot serve its health on port {port} of 127.0.0.1 ("),
        ("PREFECT_CLIENT_METRICS_PORT", "taken", "the worker cannot serve its figures on port {port} of 0.0.0.0 ("),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name_before_anything_starts(
    setting: str, value: str, message: str, prefect_api: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        more = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_CLIENT_METRICS_ENABLED": "true"}
        more |= {"PREFECT_WORKER_WEBSERVER_PORT": str(free_port()), "PREFECT_CLIENT_METRICS_PORT": str(free_port())}
        env = os.environ | more | {setting: port if value == "taken" else value}
        command = [BIN / "prefect-jobs", "worker", "--with-healthcheck"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(message.format(port=port)), done.stderr
    assert setting in last
    assert "Traceback" not in done.stderr
    assert " started!" not in done.stdout


async def test_a_worker_takes_only_the_runs_of_the_queues_that_it_is_given(api: PrefectClient, name: str) -> None:
    job = await applied(name, ["true"])
    await api.create_work_queue(name="fast", work_pool_name=name)
    deployment = await api.read_deployment_by_name(f"job/{name}")
    fast = JobRun(await api.create_flow_run_from_deployment(deployment.id, work_queue_name="fast"))
    plain = await job.run()
    words = ("prefect-jobs", "worker", "--pool", name, "--work-queue", "fast", "--run-once")
    async with worker(*words) as started:
        assert await started.ended() == 0, started.said
    assert (await fast.refresh()).state == "Completed"
    assert (await plain.refresh()).state in ("Scheduled", "Late")


@pytest.mark.parametrize(
    ("words", "env", "state"),
    [
        (["prefect-jobs", "worker", "--on-stop", "cancel"], {"PREFECT_JOBS_ON_STOP": "wait"}, "Cancelled"),
        (["prefect", "worker", "start"], {"PREFECT_JOBS_ON_STOP": "cancel"}, "Cancelled"),
        (["prefect-jobs", "worker"], {}, "Running"),
    ],
    ids=["option", "environment", "default"],
)
async def test_what_becomes_of_its_runs_is_said_by_the_option_or_the_environment(
    words: list[str], env: dict[str, str], state: str, api: PrefectClient, name: str
) -> None:
    job = await applied(name, LONG)
    async with worker(*words, "--pool", name, env=env) as started:
        run = await job.run()
        assert await first_line(run) == "up"
        assert await started.stop() == 0, started.said
        assert (await run.refresh()).state == state
        assert started.said.rstrip().endswith("stopped!")
        assert ("1 runs go on alone until the pool's next worker takes them over" in started.said) is (
            state == "Running"
        )
    if state == "Running":
        # Nobody takes it over; what is left of it goes.
        cancel = subprocess.run([BIN / "prefect-jobs", "cancel", str(run.id), "--force"], capture_output=True)
        assert cancel.returncode == 0, cancel.stderr


async def test_a_paused_pool_is_left_alone(api: PrefectClient, name: str) -> None:
    job = await applied(name, ["true"])
    run = await job.run()
    await api.update_work_pool(name, WorkPoolUpdate(is_paused=True))
    async with worker("prefect-jobs", "worker", "--pool", name, "--run-once") as started:
        assert await started.ended() == 0, started.said
    assert (await run.refresh()).flow_run.state.type is StateType.SCHEDULED  # type: ignore[union-attr]


async def test_a_queue_that_is_not_there_is_said_once_and_the_others_are_served_meanwhile(
    api: PrefectClient, name: str
) -> None:
    await applied(name, ["true"])
    deployment = await api.read_deployment_by_name(f"job/{name}")
    words = ("prefect-jobs", "worker", "--pool", name, "-q", "default", "-q", "nosuch")
    async with worker(*words, env={"PREFECT_WORKER_QUERY_SECONDS": "1"}) as started:
        await started.says(f"The work pool {name!r} has no work queue 'nosuch'; misspelt?", 20)
        await ended(JobRun(await api.create_flow_run_from_deployment(deployment.id)))
        await api.create_work_queue(name="nosuch", work_pool_name=name)
        await ended(JobRun(await api.create_flow_run_from_deployment(deployment.id, work_queue_name="nosuch")))
        assert started.said.count(f"prefect work-queue create nosuch --pool {name}") == 1
        assert "All work queues are there now" in started.said


async def test_once_fails_when_its_queue_is_not_there(name: str, prefect_api: str) -> None:
    await applied(name, ["true"])
    words = ("prefect-jobs", "worker", "--pool", name, "-q", "nosuch", "--run-once")
    async with worker(*words, started=False) as started:
        assert await started.ended() == 1, started.said
    last = started.said.splitlines()[-1]
    assert last.startswith(f"the work pool {name!r} has no work queue 'nosuch'; misspelt?"), started.said
    assert last.endswith(f"prefect work-queue create nosuch --pool {name}")


async def test_a_pool_that_the_worker_made_is_said_and_so_is_one_that_was_deleted_under_it(
    api: PrefectClient, name: str
) -> None:
    often = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    async with worker("prefect-jobs", "worker", "--pool", name, env=often) as started:
        made = f"There was no work pool {name!r}: the worker made it"
        await started.says(made, 10)
        job = await applied(name, ["true"])
        await ended(await job.run())
        await api.delete_work_pool(name)
        await started.says(f"The work pool {name!r} was deleted, and made anew", 30)
        # What it says is to be done.
        await job.apply(work_pool=name)
        run: JobRun = await job.run()
        await ended(run)
        assert (run.state, started.said.count(made), started.said.count("was deleted")) == ("Completed", 1, 1)
