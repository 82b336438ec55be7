"""The server holds every run to the job's form, whoever asks: what is wrong is named, and no run is made."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled
from reach import Execute, lines, runs_of

from prefect_jobs import Job, JobRun, Parameter, Shape, Timeouts
from prefect_jobs.quantities import Cpu, Duration

SHOW = ["sh", "-c", 'echo "$who $EXTRA $*"', "show"]


@pytest.fixture
async def job(prefect_api: str, unique: str) -> Job:
    """A job with one parameter, applied."""
    job = Job(name=unique, command=SHOW, parameters={"who": Parameter(default="world", enum=["world", "moon"])})
    await job.apply()
    return job


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"who": "mars"}, "field 'who'"),
        ({"whom": "moon"}, "'whom' is not one of ['who', 'env', 'args', 'command', 'shape', 'timeout', "),
        ({"env": {"_SECRET": "x"}}, "field 'env'"),
        ({"env": {"A": ["x"]}}, "field 'env.A'"),
        ({"args": "one two"}, "field 'args'"),
        ({"shape": {"cpu": "two"}}, "field 'shape.cpu'"),
        ({"shape": {"memory": "much"}}, "field 'shape.memory'"),
        ({"shape": {"cores": 2}}, "'cores' was unexpected"),
        ({"timeout": "soon"}, "field 'timeout'"),
        ({"timeout": {"total": "soon"}}, "field 'timeout.total'"),
        ({"infrastructure": "cloud"}, "field 'infrastructure'"),
    ],
    ids=str,
)
async def test_the_server_refuses_a_wrong_value_and_names_its_field(
    job: Job, asked: dict[str, Any], field: str, api: PrefectClient
) -> None:
    deployment = await api.read_deployment_by_name(f"job/{job.name}")
    with pytest.raises(PrefectHTTPStatusError) as refused:
        await api.create_flow_run_from_deployment(deployment.id, parameters=asked)
    assert refused.value.response.status_code == 409
    assert field in refused.value.response.json()["detail"]
    assert await runs_of(job.name) == []


async def test_what_a_form_sends_for_empty_fields_changes_nothing(
    job: Job, api: PrefectClient, execute: Execute
) -> None:
    deployment = await api.read_deployment_by_name(f"job/{job.name}")
    empty = {"env": {}, "args": [], "command": [], "shape": "", "timeout": "", "infrastructure": "", "inputs": {}}
    run = JobRun(await api.create_flow_run_from_deployment(deployment.id, parameters=empty))
    await execute(run)
    assert (run.state, await lines(run)) == ("Completed", ["world  "])


async def test_typed_parameters_stand_first_with_all_that_their_author_said(job: Job, api: PrefectClient) -> None:
    schema = (await api.read_deployment_by_name(f"job/{job.name}")).parameter_openapi_schema
    drawn = sorted(schema["properties"].values(), key=lambda field: field["position"])
    assert [field["title"] for field in drawn] == [
        "who",
        "env",
        "args",
        "command",
        "shape",
        "timeout",
        "infrastructure",
        "inputs",
    ]
    assert (drawn[0]["default"], drawn[0]["enum"]) == ("world", ["world", "moon"])
    assert "job" not in schema["properties"]


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({"timeout": 90}, {"timeout": "90"}),
        ({"timeout": Duration("5m")}, {"timeout": "5m"}),
        ({"timeout": {"total": 3600, "start": "5m"}}, {"timeout": {"total": "3600", "start": "5m"}}),
        ({"timeout": Timeouts(attempt=Duration(5))}, {"timeout": {"attempt": "5"}}),
        ({"shape": "small"}, {"shape": "small"}),
        ({"shape": {"cpu": "500m", "gpu": 1}}, {"shape": {"cpu": 0.5, "gpu": 1}}),
        ({"shape": Shape(cpu=Cpu(2))}, {"shape": {"cpu": 2}}),
        ({"args": [1, "two"], "env": {"EXTRA": 3}}, {"args": ["1", "two"], "env": {"EXTRA": 3}}),
        ({"who": "moon", "args": None, "env": {}}, {"who": "moon"}),
    ],
    ids=str,
)
async def test_python_may_write_an_override_in_every_way_that_the_template_may(
    job: Job, asked: dict[str, Any], form: dict[str, Any], api: PrefectClient
) -> None:
    run = await job.run(**asked)
    await api.set_flow_run_state(run.id, Cancelled())
    assert {name: value for name, value in run.flow_run.parameters.items() if name != "job"} == form
