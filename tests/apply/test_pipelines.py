"""Pipelines become deployments as jobs do: the same one changes nothing, and they are checked against their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from prefect_jobs import Job, Pipeline, Step, apply
from prefect_jobs.deployments import cli
from prefect_jobs.deployments.kinds import template_of
from prefect_jobs.deployments.listing import describe, list_jobs, list_runs
from prefect_jobs.deployments.runs import read_template, start
from prefect_jobs.document import Document, load_document
from prefect_jobs.errors import NotFoundError, OverrideError, TemplateError

TEXT = """
project: {name}
jobs:
  {name}: {{command: ["true"], parameters: {{n: {{type: integer, default: 1}}}}}}
pipelines:
  {name}-p:
    description: A search
    tags: [iris]
    parameters: {{k: {{type: integer, minimum: 1}}, word: {{default: a}}}}
    concurrency: {{limit: 1, beyond: refuse}}
    schedules: [{{cron: "0 8 * * *", parameters: {{k: 3}}}}]
    steps:
      z: {{job: {name}, matrix: {{n: [1, "{{{{ k }}}}"]}}}}
      a: {{job: {name}, needs: [z]}}
"""


@pytest.fixture
def document(name: str) -> Document:
    return load_document(TEXT.format(name=name))


@pytest.fixture
async def applied(document: Document) -> list[Any]:
    return await apply(document.jobs, document.pipelines, work_pool=None)


@pytest.fixture
async def there(applied: list[Any], name: str, api: PrefectClient) -> DeploymentResponse:
    return await read_template(api, f"pipeline/{name}-p")


async def test_a_pipeline_is_a_deployment_with_all_that_it_says(
    there: DeploymentResponse, document: Document, name: str, applied: list[Any]
) -> None:
    assert [(change.name, change.what) for change in applied] == [
        (f"job/{name}", "created"),
        (f"pipeline/{name}-p", "created"),
    ]
    assert template_of(there) == document.pipelines[0]
    assert (there.description, list(there.tags)) == ("A search", ["iris"])
    assert there.global_concurrency_limit is not None
    assert there.global_concurrency_limit.limit == 1
    assert [schedule.parameters for schedule in there.schedules] == [{"k": 3}]
    assert there.entrypoint == "prefect_jobs.flows.pipeline.run_pipeline[k,word]"


async def test_the_form_has_the_parameters_and_nothing_else(there: DeploymentResponse) -> None:
    form = there.parameter_openapi_schema
    assert form is not None
    assert list(form["properties"]) == ["k", "word"]
    assert form["properties"]["k"] == {"type": "integer", "minimum": 1, "title": "k", "position": 0}
    assert form["required"] == ["k"]


async def test_the_same_pipeline_changes_nothing_and_another_is_a_new_version(
    document: Document, there: DeploymentResponse, name: str, api: PrefectClient
) -> None:
    (_, same) = await apply(document.jobs, document.pipelines, work_pool=None)
    assert (same.what, same.details) == ("unchanged", ())
    # Its order is all that changes.
    (pipeline,) = document.pipelines
    turned = pipeline.model_copy(update={"steps": dict(reversed(pipeline.steps.items()))})
    change = await turned.apply(work_pool=None)
    assert (change.what, change.details) == ("updated", ("version", "parameters"))
    after = await read_template(api, f"pipeline/{name}-p")
    assert (after.id, list(template_of(after).steps)) == (there.id, ["a", "z"])  # type: ignore[union-attr]


async def test_a_pipeline_of_python_is_held_against_the_jobs_that_are_there(name: str) -> None:
    pipeline = Pipeline(name=f"{name}-p", steps={"a": Step(job=name, parameters={"n": 1})})
    with pytest.raises(TemplateError, match=rf"'{name}-p': steps.a.job: no such job") as refused:
        await pipeline.apply(work_pool=None)
    assert refused.value.key == f"pipelines.{name}-p"
    await Job(name=name, command=["true"]).apply(work_pool=None)
    with pytest.raises(TemplateError, match=r"steps.a.parameters.n: no such parameter"):
        await pipeline.apply(work_pool=None)
    await Job.model_validate(
        {"name": name, "command": ["true"], "parameters": {"n": {"type": "integer", "default": 3}}}
    ).apply(work_pool=None)
    assert (await pipeline.apply(work_pool=None)).what == "created"


async def test_a_schedule_that_prefect_does_not_take_is_refused(name: str, api: PrefectClient) -> None:
    text = TEXT.format(name=name).replace("0 8 * * *", "0 25 * * *")
    document = load_document(text)
    with pytest.raises(TemplateError, match=rf"pipeline '{name}-p', schedule cron-"):
        await apply(document.jobs, document.pipelines, work_pool=None)
    with pytest.raises(ObjectNotFound):
        await api.read_deployment_by_name(f"job/{name}")


async def test_a_pipeline_that_left_the_file_goes_when_pruned(
    document: Document, there: DeploymentResponse, api: PrefectClient, name: str
) -> None:
    changes = await apply(document.jobs, [], work_pool=None, prune=True)
    assert [(change.name, change.what) for change in changes] == [
        (f"job/{name}", "unchanged"),
        (f"pipeline/{name}-p", "removed"),
    ]
    with pytest.raises(NotFoundError, match="there is no pipeline"):
        await read_template(api, f"pipeline/{name}-p")


async def test_a_pipeline_is_listed_shown_and_started_by_its_name(
    there: DeploymentResponse, api: PrefectClient, name: str, document: Document
) -> None:
    row = next(row for row in await list_jobs(api) if row["job"] == f"pipeline/{name}-p")
    assert (row["description"], row["version"]) == ("A search", there.version)
    shown = await describe(api, f"{name}-p")
    assert f"# deployment: pipeline/{name}-p" in shown
    assert shown.index("z:") < shown.index("a:")
    started = await start(f"{name}-p", {}, texts={"k": "4"}, run_name=f"{name}-run")
    (run,) = await list_runs(api, f"pipeline/{name}-p", 5)
    assert (run["run"], run["job"], run["state"]) == (f"{name}-run", f"pipeline/{name}-p", "Scheduled")
    assert "asked for: {'k': 4}" in await describe(api, str(started.id))


async def test_a_job_comes_before_a_pipeline_of_its_name(name: str, api: PrefectClient) -> None:
    await Job(name=name, command=["true"]).apply(work_pool=None)
    await Pipeline(name=name, steps={"a": Step(job=name)}).apply(work_pool=None)
    assert (await read_template(api, name)).entrypoint == "prefect_jobs.flows.job.run_job"
    assert (await read_template(api, f"pipeline/{name}")).entrypoint == "prefect_jobs.flows.pipeline.run_pipeline"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "pipeline .* needs a value for parameter 'k'"),
        ({"k": "x"}, "parameter 'k' of pipeline .*expected type 'integer'"),
        ({"k": 0}, "expected at least 1"),
        ({"k": 1, "m": 1}, "has no parameter 'm'"),
        ({"k": 1, "env": {"A": "b"}}, "takes no override such as 'env'"),
    ],
)
async def test_a_run_with_wrong_parameters_is_refused(
    there: DeploymentResponse, name: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(OverrideError, match=words):
        await start(f"{name}-p", given)


def test_the_command_line_applies_and_names_where_a_pipeline_is_wrong(
    prefect_api: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(TEXT.format(name=name))
    with pytest.raises(SystemExit) as ended:
        cli.app(["apply", str(file), "--pool", "nobody-serves-this"])
    assert ended.value.code == 0
    assert f"pipeline/{name}-p: created, version " in capsys.readouterr().out
    file.write_text(TEXT.format(name=name).replace("0 8 * * *", "0 25 * * *"))
    with pytest.raises(SystemExit):
        cli.app(["apply", str(file)])
    assert f"{file}:6: pipelines.{name}-p: pipeline '{name}-p', schedule" in capsys.readouterr().err
