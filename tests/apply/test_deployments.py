"""What the server has of a job is what the template says, and applying the same again changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from prefect.workers.process import ProcessWorker

from prefect_jobs import Job
from prefect_jobs.deployments.kinds import template_of
from prefect_jobs.deployments.runs import read_job
from prefect_jobs.document import dumps, loads

Make = Callable[..., Job]
There = Callable[[], Awaitable[DeploymentResponse]]

FULL: dict[str, Any] = {
    "description": "What it does",
    "parameters": {"size": {"type": "number", "default": 1}, "who": {"default": "w"}},
    "retries": {"failures": 1, "delay": [1.0, 60]},
    "timeout": 60,
    "concurrency": {"limit": 2, "beyond": "refuse"},
    "schedules": [{"cron": "0 8 * * *", "timezone": "Europe/Berlin", "parameters": {"size": 2.0}}, {"interval": "1d"}],
    "tags": ["b", "a"],
    "env": {"A": "1", "B": 2},
}


async def test_applying_twice_changes_nothing(make: Make, there: There) -> None:
    created = await make(**FULL).apply()
    before = await there()
    again = await make(**FULL).apply()
    after = await there()
    assert (created.what, again.what, again.details) == ("created", "unchanged", ())
    assert created.version == again.version == after.version
    assert created.deployment_id == again.deployment_id
    assert after.model_dump() == before.model_dump()


async def test_another_order_of_keys_changes_nothing(make: Make) -> None:
    await make(**FULL).apply()
    assert (await make(**dict(reversed(FULL.items()))).apply()).what == "unchanged"


async def test_a_document_that_was_written_and_read_again_changes_nothing(make: Make) -> None:
    job = make(**FULL)
    await job.apply()
    (read,) = loads(dumps([job]))
    assert (await read.apply()).what == "unchanged"


async def test_a_changed_template_is_a_new_version_of_the_same_deployment(make: Make, there: There) -> None:
    created = await make().apply()
    updated = await make(env={"A": "b"}).apply()
    assert (updated.what, updated.details) == ("updated", ("version", "parameters"))
    assert updated.version != created.version
    assert updated.deployment_id == created.deployment_id
    assert (await there()).version == updated.version
    assert (await make().apply()).version == created.version


async def test_the_deployment_carries_the_template_and_points_at_the_flow(make: Make, there: There) -> None:
    job = make(**FULL)
    await job.apply(work_pool="jobs")
    deployment = await there()
    assert template_of(deployment) == job
    assert deployment.description == "What it does"
    assert deployment.tags == ["b", "a"]
    assert deployment.work_pool_name == "jobs"
    assert deployment.enforce_parameter_schema
    assert deployment.pull_steps in (None, [])
    assert deployment.path is None
    flow = load_flow_from_entrypoint(str(deployment.entrypoint), use_placeholder_flow=False)
    assert set(flow.parameters.properties) == {
        "job", "size", "who", "env", "args", "command", "shape", "timeout", "infrastructure", "inputs", "index", "count"
    }  # fmt: skip


async def test_the_run_form_has_the_jobs_parameters_first_and_hides_the_template(make: Make, there: There) -> None:
    await make(**FULL).apply()
    schema = (await there()).parameter_openapi_schema
    assert schema is not None
    order = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
    assert order[:2] == ["size", "who"]
    assert "job" not in order
    assert schema["required"] == []


CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {"tags": ["a"]}, ["tags"]),
    ({"tags": ["a", "b"]}, {"tags": ["b"]}, ["tags"]),
    ({"tags": ["a"]}, {}, ["tags"]),
    ({}, {"description": "new"}, ["description"]),
    ({"description": "old"}, {}, ["description"]),
    ({}, {"parameters": {"a": {"default": "x"}}}, ["parameter_openapi_schema", "entrypoint"]),
    # Runs that were made before the change find the flow with the parameters that they have.
    ({"parameters": {"a": {"default": "x"}}}, {}, ["parameter_openapi_schema"]),
    ({}, {"concurrency": 1}, ["concurrency_limit", "concurrency_options"]),
    ({"concurrency": 1}, {"concurrency": 2}, ["concurrency_limit"]),
    ({"concurrency": 1}, {"concurrency": {"limit": 1, "beyond": "refuse"}}, ["concurrency_options"]),
    ({"concurrency": 1}, {}, ["concurrency_limit", "concurrency_options"]),
]


@pytest.mark.parametrize(("before", "after", "fields"), CHANGES, ids=str)
async def test_only_what_changed_is_changed_and_then_rests(
    make: Make, before: dict[str, Any], after: dict[str, Any], fields: list[str]
) -> None:
    await make(**before).apply()
    change = await make(**after).apply()
    assert set(change.details) == {"version", "parameters", *fields}
    assert (await make(**after).apply()).what == "unchanged"


async def test_a_limit_reaches_the_server_and_is_taken_from_it_again(make: Make, there: There) -> None:
    await make(concurrency={"limit": 3, "beyond": "refuse"}).apply()
    deployment = await there()
    assert deployment.global_concurrency_limit is not None
    assert deployment.global_concurrency_limit.limit == 3
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy is ConcurrencyLimitStrategy.CANCEL_NEW
    await make(concurrency=4).apply()
    deployment = await there()
    assert deployment.global_concurrency_limit is not None
    assert deployment.global_concurrency_limit.limit == 4
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy is ConcurrencyLimitStrategy.ENQUEUE
    await make().apply()
    deployment = await there()
    assert deployment.global_concurrency_limit is None


async def test_what_somebody_changed_on_the_server_is_as_the_template_says_again(
    make: Make, there: There, api: PrefectClient
) -> None:
    await make(description="right", tags=["right"]).apply()
    await api.update_deployment((await there()).id, DeploymentUpdate(description="wrong", tags=["wrong"]))
    change = await make(description="right", tags=["right"]).apply()
    assert set(change.details) == {"description", "tags"}
    assert (await there()).description == "right"


async def test_a_job_that_somebody_paused_stays_paused(make: Make, there: There, api: PrefectClient) -> None:
    await make().apply()
    await api.update_deployment((await there()).id, DeploymentUpdate(paused=True))
    assert (await make(env={"A": "b"}).apply()).what == "updated"
    assert (await there()).paused


async def test_a_job_can_be_moved_to_another_work_pool(make: Make, there: There, api: PrefectClient, name: str) -> None:
    await make().apply(work_pool="jobs")
    assert (await make().apply(work_pool=name)).details == ("work_pool_name",)
    assert (await there()).work_pool_name == name
    await api.delete_work_pool(name)


async def test_a_pool_that_is_there_stays_as_it_is_whatever_its_type(make: Make, api: PrefectClient, name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    await api.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    await make().apply(work_pool=name)
    pool = await api.read_work_pool(name)
    assert (pool.type, pool.base_job_template) == ("process", template)
    await api.delete_work_pool(name)


async def test_two_jobs_of_one_document_are_two_deployments(name: str, api: PrefectClient) -> None:
    from prefect_jobs import apply

    jobs = loads(f"jobs:\n  {name}-a: {{command: [a]}}\n  {name}-b: {{command: [b]}}\n")
    changes = await apply(jobs)
    assert [(change.name, change.what) for change in changes] == [
        (f"job/{name}-a", "created"),
        (f"job/{name}-b", "created"),
    ]
    assert template_of(await read_job(api, f"{name}-b")).command == ["b"]
