"""What a run is asked for, as typed and as given from Python: read by its type, and named when it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_jobs import Job
from prefect_jobs.deployments.cli import OVERRIDE_OPTIONS
from prefect_jobs.deployments.runs import start_run
from prefect_jobs.errors import NotFoundError, OverrideError
from prefect_jobs.flows.job import flow_of
from prefect_jobs.job import OVERRIDES, PLACE


@pytest.mark.parametrize("name", ["job", "wait_for", "return_state", "start_run", "parameters", "texts"])
async def test_a_name_that_is_no_parameter_is_refused_by_name_from_python(greet: Job, name: str) -> None:
    with pytest.raises(OverrideError, match=rf"has no parameter '{name}'; it has: who, names, times"):
        await greet.run(**{name: 3})


@pytest.mark.parametrize("name", ["job", "run_name", "run_tags", "wait_for"])
async def test_a_name_that_is_no_parameter_is_refused_by_name_when_typed(greet: Job, name: str) -> None:
    with pytest.raises(OverrideError, match=rf"has no parameter '{name}'; it has: who, names, times"):
        await start_run(greet.name, texts={name: "q"})


async def test_parameters_overrides_name_and_tags_of_a_run_are_keywords(greet: Job) -> None:
    run = await greet.run(who="moon", env={"A": "b"}, run_name="first", run_tags=["t"])
    assert (run.name, "t" in run.flow_run.tags) == ("first", True)
    assert {key: value for key, value in run.flow_run.parameters.items() if key != "job"} == {
        "who": "moon",
        "env": {"A": "b"},
    }


async def test_what_was_typed_is_read_by_the_parameters_types(greet: Job) -> None:
    run = await start_run(greet.name, {"args": ["x"]}, texts={"who": "123", "times": "3", "names": '["1"]'})
    given = {key: value for key, value in run.flow_run.parameters.items() if key != "job"}
    assert given == {"who": "123", "times": 3, "names": ["1"], "args": ["x"]}


async def test_what_was_mistyped_is_named_with_parameter_type_and_text(greet: Job) -> None:
    with pytest.raises(OverrideError, match=rf"'times' of job '{greet.name}': 'many' does not read as type 'integer'"):
        await start_run(greet.name, texts={"times": "many"})


async def test_a_deployment_of_somebody_elses_flow_is_no_job(foreign: Any) -> None:
    name = await foreign()
    with pytest.raises(NotFoundError, match=rf"deployment 'job/{name}' was not made by prefect-jobs"):
        await start_run(name)


def test_every_override_has_an_option_of_the_command_line() -> None:
    assert tuple(OVERRIDE_OPTIONS) == OVERRIDES


# Names that Prefect's machinery has for arguments and attributes of its own; a flow may have them.
HARMLESS = [
    *(
        "self",
        "cls",
        "name",
        "flow",
        "flow_run",
        "flow_run_id",
        "parameters",
        "context",
        "client",
        "fn",
        "args_",
        "kwargs",
    ),
    *("state", "version", "tags", "timeout_seconds", "return_type", "deployment", "logger", "retries", "type", "match"),
]


async def test_a_job_may_have_parameters_whose_names_prefect_uses_elsewhere(name: str, execute: Any) -> None:
    shown = " ".join(f"${each}" for each in HARMLESS)
    job = Job.model_validate(
        {"name": name, "command": ["sh", "-c", f"echo {shown}"], "parameters": {each: {} for each in HARMLESS}}
    )
    await job.apply(work_pool=None)
    run = await job.run(**{each: each.upper() for each in HARMLESS})
    await execute(run)
    lines = [log.message for log in await run.logs() if log.name.startswith("container.")]
    assert (run.state, lines) == ("Completed", [" ".join(HARMLESS).upper()])


def test_the_flow_has_the_parameters_of_its_name() -> None:
    assert list(flow_of(("who",)).parameters.properties) == ["job", "who", *OVERRIDES, *PLACE]
