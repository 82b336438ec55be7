"""Nothing is left behind: the sweep removes what ended or vanished runs left, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.blocks.fields import SecretDict
from prefect.client.orchestration import get_client
from prefect.states import Crashed
from supervisors import kill, start_supervisor

from prefect_jobs import Job
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.blocks.store_access import access_to
from prefect_jobs.deployments.runs import JobRun
from prefect_jobs.flows.ending import Remains
from prefect_jobs.flows.sweep import Sweep, sweep_all
from prefect_jobs.quantities import Duration
from prefect_jobs.spec import ContainerSpec, Identity
from prefect_jobs.storage import Store

pytestmark = pytest.mark.usefixtures("sweeping_alone")

NOW = Duration(0)


@pytest.fixture(params=["process", "docker"])
def infrastructure(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def _orphan(infrastructure: str, image: str) -> JobRun:
    """A run whose supervisor was killed while its container ran."""
    job = Job(
        name=f"orphan-{infrastructure}-{uuid4().hex[:6]}",
        infrastructure=infrastructure,
        image=image,
        command=["sleep", "300"],
    )
    await job.apply()
    run: JobRun = await job.run()
    supervisor = await start_supervisor(run)
    async with asyncio.timeout(60):
        while not await _is_there(infrastructure, run):
            await asyncio.sleep(0.1)
    await kill(supervisor)
    return run


async def _is_there(infrastructure: str, run: JobRun) -> bool:
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        return run.id in await engine.runs() or run.id in [found.run_id for found in await engine.containers()]


async def _sweep(infrastructure: str, dry_run: bool = False, older_than: Duration = NOW) -> Sweep:
    async with get_client() as client:
        return await sweep_all(client, [infrastructure], older_than=older_than, dry_run=dry_run)


async def test_what_an_ended_run_left_goes_and_a_live_run_keeps_its_container(
    infrastructure: str, busybox: str, prefect_api: str
) -> None:
    run = await _orphan(infrastructure, busybox)
    assert run.id not in [swept.run_id for swept in (await _sweep(infrastructure)).removed]
    assert await _is_there(infrastructure, run), "the run is still Running: somebody may take it up"

    async with get_client() as client:
        await client.set_flow_run_state(run.id, Crashed(message="its supervisor was killed"), force=True)
    young = await _sweep(infrastructure, older_than=Duration("1h"))
    assert run.id not in [swept.run_id for swept in young.removed]
    shown = await _sweep(infrastructure, dry_run=True)
    assert [(swept.containers, swept.why) for swept in shown.removed if swept.run_id == run.id] == [
        (1, "the run ended Crashed")
    ]
    assert await _is_there(infrastructure, run)
    done = await _sweep(infrastructure)
    assert run.id in [swept.run_id for swept in done.removed]
    assert done.problems == []
    assert not await _is_there(infrastructure, run)


async def test_what_a_deleted_run_left_goes(infrastructure: str, busybox: str, prefect_api: str) -> None:
    run = await _orphan(infrastructure, busybox)
    async with get_client() as client:
        await client.delete_flow_run(run.id)
    done = await _sweep(infrastructure)
    assert [swept.why for swept in done.removed if swept.run_id == run.id] == ["Prefect does not know the run any more"]
    assert not await _is_there(infrastructure, run)


async def test_what_another_installation_of_prefect_started_is_never_touched(
    infrastructure: str, busybox: str, prefect_api: str
) -> None:
    identity = Identity(job="theirs", version="1", run_id=uuid4(), run_name="theirs", installation="another one")
    async with (await load_infrastructure(infrastructure)).engine() as engine:
        spec = ContainerSpec(image=busybox, command=["sleep", "300"])
        await engine.launch(spec, identity, {}, print)
        try:
            done = await _sweep(infrastructure)
            assert identity.run_id not in [swept.run_id for swept in done.removed]
            assert (await engine.runs())[identity.run_id] == "another one"
        finally:
            await engine.discard(identity)
            await engine.release(identity.run_id)


async def test_an_engine_that_is_away_is_named_and_the_others_are_swept(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    async with get_client() as client:
        done = await sweep_all(client, ["docker", "process"], older_than=Duration("1h"))
    assert len(done.problems) == 1
    assert done.problems[0].startswith("docker: ")


async def test_the_last_lines_of_a_run_that_is_ended_from_outside_hide_what_its_store_gave_it(prefect_api: str) -> None:
    mark = uuid4().hex[:6]
    given = {"key": f"AKID{mark}", "secret": f"hidden/{uuid4().hex}"}
    store = ObjectStore(url="s3://bucket", credentials=SecretDict(given))
    await store.save(f"state-{mark}")
    command = ["sh", "-c", "echo id $AWS_ACCESS_KEY_ID; echo key $AWS_SECRET_ACCESS_KEY; sleep 300"]
    job = Job(name=f"told-{mark}", command=command, store=Store(block=f"state-{mark}", credentials=True))
    await job.apply(work_pool=None)
    run: JobRun = await job.run()
    identity = Identity(job=job.name, version="1", run_id=run.id, run_name="told", installation="ours")
    async with get_client() as client:
        async with (await load_infrastructure("process")).engine() as engine:
            spec = ContainerSpec(command=command)
            container = await engine.launch(spec, identity, access_to(store).secrets, print)
            lines = container.logs()
            assert [(await anext(lines)).text for _ in given] == [f"id {given['key']}", f"key {given['secret']}"]
        assert await Remains(run.flow_run).end(client, grace_seconds=1) == 1
    assert [log.message for log in await run.logs() if log.name.startswith("container.")] == ["id ***", "key ***"]


async def test_a_run_with_a_key_or_tags_of_its_own_is_no_run_of_a_pipeline(prefect_api: str) -> None:
    job = Job(name=f"keyed-{uuid4().hex[:6]}", command=["true"])
    change = await job.apply(work_pool=None)
    tags = ["pipeline:search", "step:fit"]
    given: list[tuple[str, list[str]]] = [
        (f"{uuid4()}/fit/0/{uuid4().hex[:12]}/0", tags),
        (f"{uuid4()}", tags),
        (f"{uuid4()}/fit/0", tags),
        (f"{uuid4()}/fit/0/{uuid4().hex[:12]}/0", ["step:fit", "mine"]),
        (f"{uuid4()}/fit/0/{uuid4().hex[:12]}/0", ["pipeline:search", "step:fitness"]),
    ]
    async with get_client() as client:
        runs = [
            await client.create_flow_run_from_deployment(change.deployment_id, idempotency_key=key, tags=its_tags)
            for key, its_tags in given
        ]
        await sweep_all(client, ["process"], older_than=NOW)
        states = [(await client.read_flow_run(run.id)).state_name for run in runs]
    assert states == ["Cancelled", *["Scheduled"] * 4]


def test_the_command_sweeps_now_and_makes_a_deployment_that_sweeps(prefect_api: str) -> None:
    program = str(Path(sys.executable).with_name("prefect-jobs"))

    def sweep(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, "sweep", *options], capture_output=True, text=True)

    now = sweep("--infrastructure", "process", "--older-than", "1h")
    assert now.returncode == 0, now.stderr
    assert sweep("--every", "15m").stdout == "sweep/jobs: created, every 15m\n"
    assert sweep("--every", "30m").stdout == "sweep/jobs: updated, every 30m\n"
    wrong = sweep("--older-than", "soon")
    assert (wrong.returncode, wrong.stderr.partition(":")[0]) == (1, "--older-than 'soon'")
