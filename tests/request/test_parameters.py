from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prefect_jobs.errors import OverrideError
from prefect_jobs.job import Job
from prefect_jobs.parameters import Parameter, read_texts
from prefect_jobs.request import Request
from prefect_jobs.spec import ContainerSpec

MakeJob = Callable[..., Job]
SpecOf = Callable[..., ContainerSpec]

TAKEN: list[tuple[dict[str, Any], Any]] = [
    ({}, "text"),
    ({"type": "number"}, 0.5),
    ({"type": "number"}, 3),
    ({"type": "number", "minimum": 1, "maximum": 1}, 1),
    ({"type": "integer"}, -3),
    ({"type": "boolean"}, False),
    ({"type": "list"}, ["a", "b"]),
    ({"type": "list", "items": "number"}, [1, 0.5]),
    ({"type": "list"}, []),
    ({"enum": ["a", "b"]}, "b"),
    ({"type": "list", "enum": ["a", "b"]}, ["b", "b"]),
    ({"pattern": "^a+$"}, "aaa"),
    ({"pattern": "b"}, "abc"),
]
REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({}, 3, "expected type 'string', found int"),
    ({"type": "number"}, "3", "expected type 'number', found str"),
    ({"type": "number"}, True, "expected type 'number', found bool"),
    ({"type": "number"}, float("inf"), "expected type 'number', found float"),
    ({"type": "integer"}, 0.5, "expected type 'integer', found float"),
    ({"type": "integer"}, True, "expected type 'integer', found bool"),
    ({"type": "boolean"}, 1, "expected type 'boolean', found int"),
    ({"type": "boolean"}, "true", "expected type 'boolean', found str"),
    ({"type": "list"}, "a", "expected type 'list', found str"),
    ({"type": "list"}, ["a", 1], "expected items of type 'string', found 1"),
    ({"type": "list", "items": "integer"}, [1, True], "expected items of type 'integer', found True"),
    ({"type": "list", "enum": ["a"]}, ["a", "c"], "expected one of 'a', found 'c'"),
    ({"enum": ["a", "b"]}, "c", "expected one of 'a', 'b', found 'c'"),
    ({"type": "number", "minimum": 0.05}, 0.01, "expected at least 0.05"),
    ({"type": "integer", "maximum": 3}, 4, "expected at most 3"),
    ({"pattern": "^a+$"}, "ab", "expected a match of '^a+$'"),
]


@pytest.mark.parametrize(("parameter", "value"), TAKEN)
def test_a_value_of_the_right_type_is_taken(make_job: MakeJob, parameter: dict[str, Any], value: Any) -> None:
    job = make_job(parameters={"n": parameter})
    assert Request.parse(job, {"n": value}).parameters == {"n": value}


@pytest.mark.parametrize(("parameter", "value", "expected"), REFUSED)
def test_a_wrong_value_is_refused_with_the_names_of_job_and_parameter(
    make_job: MakeJob, parameter: dict[str, Any], value: Any, expected: str
) -> None:
    with pytest.raises(OverrideError) as refused:
        Request.parse(make_job(parameters={"n": parameter}), {"n": value})
    assert str(refused.value) == f"parameter 'n' of job 'a': {value!r} is not allowed: {expected}"


def test_a_default_stands_for_a_value_that_is_not_given(make_job: MakeJob) -> None:
    job = make_job(parameters={"n": {"type": "integer", "default": 3}, "off": {"type": "boolean", "default": False}})
    assert Request.parse(job, {}).parameters == {"n": 3, "off": False}
    assert Request.parse(job, {"n": None}).parameters["n"] == 3


def test_a_value_that_counts_as_false_is_a_value(make_job: MakeJob) -> None:
    job = make_job(parameters={"n": {"type": "integer", "default": 3}, "text": {"default": "x"}})
    assert Request.parse(job, {"n": 0, "text": ""}).parameters == {"n": 0, "text": ""}


@pytest.mark.parametrize("given", [{}, {"n": None}])
def test_a_parameter_without_default_must_be_given(make_job: MakeJob, given: dict[str, Any]) -> None:
    with pytest.raises(OverrideError, match="job 'a' needs a value for parameter 'n', which has no default"):
        Request.parse(make_job(parameters={"n": {}}), given)


def test_an_unknown_parameter_is_refused_with_those_that_are_known(make_job: MakeJob) -> None:
    job = make_job(parameters={"size": {"default": "s"}, "depth": {"default": "d"}})
    with pytest.raises(OverrideError, match=r"job 'a' has no parameter 'sise', 'x'; it has: size, depth"):
        Request.parse(job, {"x": 1, "sise": 2})


def test_a_job_without_parameters_says_so(make_job: MakeJob) -> None:
    with pytest.raises(OverrideError, match="no parameter 'n'; it has: none"):
        Request.parse(make_job(), {"n": 1})


TYPED: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "123", "123"),
    ({}, "true", "true"),
    ({}, '"quoted"', '"quoted"'),
    ({}, "", ""),
    ({"type": "integer"}, "-3", -3),
    ({"type": "number"}, "0.5", 0.5),
    ({"type": "number"}, "3", 3),
    ({"type": "boolean"}, "false", False),
    ({"type": "list"}, '["a", "1"]', ["a", "1"]),
    ({"type": "list", "items": "integer"}, "[1, 2]", [1, 2]),
]
MISTYPED: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "integer"}, "three", "3"),
    ({"type": "integer"}, "0.5", "3"),
    ({"type": "integer"}, "", "3"),
    ({"type": "integer"}, "null", "3"),
    ({"type": "number"}, "1,5", "0.5"),
    ({"type": "number"}, "NaN", "0.5"),
    ({"type": "boolean"}, "True", "true"),
    ({"type": "boolean"}, "1", "true"),
    ({"type": "list"}, "a,b", '\'["text", "text"]\''),
    ({"type": "list", "items": "integer"}, "1", "'[3, 3]'"),
]


@pytest.mark.parametrize(("parameter", "text", "value"), TYPED)
def test_what_a_person_typed_is_read_by_the_type_of_its_parameter(
    parameter: dict[str, Any], text: str, value: Any
) -> None:
    assert read_texts({"n": Parameter.model_validate(parameter)}, {"n": text}, "a") == {"n": value}


@pytest.mark.parametrize(("parameter", "text", "such_as"), MISTYPED)
def test_a_text_of_another_type_is_refused_with_parameter_type_and_text(
    parameter: dict[str, Any], text: str, such_as: str
) -> None:
    with pytest.raises(OverrideError) as refused:
        read_texts({"n": Parameter.model_validate(parameter)}, {"n": text}, "job 'a'")
    assert str(refused.value) == (
        f"parameter 'n' of job 'a': {text!r} does not read as type {parameter['type']!r}; "
        f"write it as JSON, such as {such_as}"
    )


def test_parameters_reach_the_environment_as_texts(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(
        parameters={
            "text": {},
            "size": {"type": "number"},
            "wet": {"type": "boolean"},
            "names": {"type": "list"},
        }
    )
    spec = spec_of(job, text="a b", size=0.5, wet=True, names=["a", 'b"c'])
    assert spec.env == {"text": "a b", "size": "0.5", "wet": "true", "names": '["a", "b\\"c"]'}


def test_a_reference_in_command_and_args_becomes_the_value(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(
        command=["run", "{{ who }}", "{{who}}-{{  size  }}"],
        args=["--size={{ size }}", 3],
        parameters={"who": {"default": "world"}, "size": {"type": "number", "default": 0.2}},
    )
    spec = spec_of(job, size=0.25)
    assert spec.command == ["run", "world", "world-0.25"]
    assert spec.args == ["--size=0.25", "3"]


@pytest.mark.parametrize("hostile", ["a'; echo foo", "$(id)", "{{ size }}", "\\1", "%s", "a\nb", "ü 😀"])
def test_a_value_is_put_in_as_it_is_and_never_read_again(make_job: MakeJob, spec_of: SpecOf, hostile: str) -> None:
    job = make_job(command=["run", "<{{ who }}>"], parameters={"who": {}, "size": {"default": "s"}})
    spec = spec_of(job, who=hostile)
    assert spec.command == ["run", f"<{hostile}>"]
    assert spec.env["who"] == hostile


@pytest.mark.parametrize("text", ["{ who }", "{{}}", "{{ 1 }}", "${{ }}", "{{ a b }}", "}} {{", "{{ who | upper }}"])
def test_braces_that_are_no_reference_stay_as_they_are(make_job: MakeJob, spec_of: SpecOf, text: str) -> None:
    assert spec_of(make_job(command=[text])).command == [text]


def test_a_reference_in_a_run_that_names_nothing_is_refused(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(parameters={"who": {"default": "w"}})
    with pytest.raises(OverrideError, match=r"\{\{ whom \}\} in 'x \{\{ whom \}\}' names no parameter.*who"):
        spec_of(job, args=["x {{ whom }}"])
