from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prefect_jobs.errors import OverrideError
from prefect_jobs.job import OVERRIDES, Job
from prefect_jobs.overrides import Overrides
from prefect_jobs.quantities import Cpu, Memory
from prefect_jobs.request import Request, shape, total_timeout
from prefect_jobs.spec import RESERVED_ENVIRONMENT, ContainerSpec, Shape

MakeJob = Callable[..., Job]
SpecOf = Callable[..., ContainerSpec]

SHAPES = {"small": Shape(cpu=Cpu(1), memory=Memory("2Gi")), "large": Shape(cpu=Cpu(8), gpu=1)}


def _shape(job: Job, **given: Any) -> Shape:
    return shape(job, Request.parse(job, given).overrides, SHAPES, "docker/local")


def test_the_environment_of_a_run_stands_over_parameters_and_these_over_the_job(
    make_job: MakeJob, spec_of: SpecOf
) -> None:
    job = make_job(
        env={"A": "job", "B": "job", "C": "job", "D": 4},
        parameters={"B": {"default": "parameter"}, "C": {"default": "parameter"}},
    )
    assert spec_of(job, env={"C": "run", "E": 5}).env == {
        "A": "job",
        "B": "parameter",
        "C": "run",
        "D": "4",
        "E": "5",
    }


def test_a_run_cannot_set_a_variable_with_a_leading_underscore(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(env={"_INTERNAL": "job"})
    assert spec_of(job).env == {"_INTERNAL": "job"}
    with pytest.raises(OverrideError, match=r"'_INTERNAL': a leading underscore .*set it in the template"):
        spec_of(job, env={"_INTERNAL": "run"})


def test_a_run_cannot_set_a_secret_in_plain_text(make_job: MakeJob, spec_of: SpecOf) -> None:
    with pytest.raises(OverrideError, match=r"'TOKEN' is a secret of job 'a'.*Prefect Secret block 'wandb'"):
        spec_of(make_job(secrets={"TOKEN": "wandb"}), env={"TOKEN": "plain"})


def test_a_secret_as_a_file_is_named_and_not_held_by_the_specification(make_job: MakeJob, spec_of: SpecOf) -> None:
    spec = spec_of(make_job(secrets={"TOKEN": "wandb", "KEY": {"block": "tls", "file": "/run/secrets/tls.key"}}))
    assert spec.secrets == {"TOKEN": "wandb", "KEY": "tls"}
    assert spec.secret_files == {"KEY": "tls.key"}
    values = {"TOKEN": "t", "KEY": "k"}
    assert spec.secret_environment(values) == {"TOKEN": "t", "KEY_FILE": "/run/secrets/tls.key"}
    assert spec.secret_contents(values) == {"tls.key": "k"}


def test_a_run_cannot_say_where_a_secret_has_its_file(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(secrets={"KEY": {"block": "tls", "file": "/run/secrets/tls.key"}})
    with pytest.raises(OverrideError, match=r"'KEY_FILE' is where job 'a' finds the file of its secret 'KEY'"):
        spec_of(job, env={"KEY_FILE": "/etc/passwd"})


@pytest.mark.parametrize("name", sorted(RESERVED_ENVIRONMENT))
def test_a_run_cannot_set_what_every_container_gets(make_job: MakeJob, name: str) -> None:
    with pytest.raises(OverrideError, match=rf"env\.{name}' of job 'a': .*sets this name itself"):
        Request.parse(make_job(), {"env": {name: "x"}})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"env": {"a-b": "c"}}, r"env\.a-b.*letters, digits and underscores"),
    ({"env": {"A": True}}, r"env\.A.*string or a number"),
    ({"env": ["A"]}, r"env.*mapping"),
    ({"args": "--fast"}, r"args.*list of strings, such as \[--fast\]"),
    ({"command": [None]}, r"command\.0.*string or a number"),
    ({"shape": {"cpus": 1}}, r"shape\.cpus.*expected one of cpu, memory, gpu, shared_memory"),
    ({"shape": {"memory": "4GB"}}, r"shape\.memory.*'4Gi'.*found '4GB'"),
    ({"shape": {"gpu": -1}}, r"shape\.gpu.*greater than or equal to 0"),
    ({"timeout": "soon"}, r"timeout.*duration such as.*found 'soon'"),
    ({"timeout": 0}, r"timeout'.*above zero.*found 0"),
    ({"timeout": {"total": "0s"}}, r"timeout\.total.*above zero.*found '0s'"),
    ({"timeout": {"all": 1}}, r"timeout\.all.*attempt, total, start"),
    ({"infrastructure": "nomad"}, r"infrastructure.*process, docker.*found 'nomad'"),
    ({"infrastructure": "kubernetes"}, r"infrastructure.*this release has process and docker.*found 'kubernetes'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda part: str(part))
def test_a_wrong_override_is_named_with_what_is_expected(
    make_job: MakeJob, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OverrideError, match=message) as refused:
        Request.parse(make_job(), given)
    assert "job 'a'" in str(refused.value)


def test_command_and_args_of_a_run_replace_those_of_the_job(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(command=["run"], args=["a", "{{ who }}"], parameters={"who": {"default": "w"}})
    changed = spec_of(job, args=["b", "{{ who }}", 5])
    assert (changed.command, changed.args) == (["run"], ["b", "w", "5"])
    changed = spec_of(job, command=["walk"])
    assert (changed.command, changed.args) == (["walk"], ["a", "w"])


def test_a_shape_override_changes_only_what_it_names(make_job: MakeJob) -> None:
    job = make_job(shape={"cpu": 2, "memory": "4Gi"})
    assert _shape(job, shape={"memory": "8Gi"}) == Shape(cpu=Cpu(2), memory=Memory("8Gi"))


def test_a_shape_override_changes_a_named_shape_too(make_job: MakeJob) -> None:
    assert _shape(make_job(shape="large"), shape={"gpu": 0}) == Shape(cpu=Cpu(8), gpu=0)


def test_a_shape_by_name_replaces_all_of_the_jobs(make_job: MakeJob) -> None:
    job = make_job(shape={"cpu": 2, "shared_memory": "1Gi"})
    assert _shape(job, shape="small") == SHAPES["small"]


def test_without_an_override_the_job_has_its_own_shape(make_job: MakeJob) -> None:
    assert _shape(make_job(shape="small")) == SHAPES["small"]
    assert _shape(make_job(shape={"cpu": 2})) == Shape(cpu=Cpu(2))
    assert _shape(make_job()) == Shape()


def test_an_unknown_shape_is_refused_with_those_that_the_infrastructure_has(make_job: MakeJob) -> None:
    with pytest.raises(OverrideError, match="shape 'huge': docker/local defines small, large"):
        _shape(make_job(), shape="huge")


def test_a_timeout_override_changes_only_what_it_names(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(timeout={"attempt": "1h", "total": "3h", "start": "5m"})
    spec = spec_of(job, timeout={"start": "1m"})
    assert (spec.attempt_timeout, spec.start_timeout) == (3600, 60)
    assert total_timeout(job, Request.parse(job, {"timeout": {"total": 10}}).overrides) == 10
    assert total_timeout(job, Request.parse(job, {}).overrides) == 3 * 3600


def test_a_plain_timeout_override_is_that_of_one_attempt(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(timeout={"attempt": "1h", "total": "3h", "start": "5m"})
    spec = spec_of(job, timeout="2m")
    assert (spec.attempt_timeout, spec.start_timeout) == (120, 300)
    assert total_timeout(job, Request.parse(job, {"timeout": "2m"}).overrides) == 3 * 3600


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_empty_overrides_of_a_form_change_nothing(make_job: MakeJob, spec_of: SpecOf, empty: Any) -> None:
    job = make_job(command=["run"], args=["a"], env={"A": "b"}, shape={"cpu": 2}, timeout="1h")
    form = dict.fromkeys(OVERRIDES, empty)
    assert spec_of(job, **form) == spec_of(job)
    assert _shape(job, **form) == Shape(cpu=Cpu(2))
    assert Request.parse(job, form).changed == {}


def test_every_override_is_known_by_its_name_on_every_floor() -> None:
    assert tuple(Overrides.model_fields) == OVERRIDES


def test_a_run_names_what_it_changed(make_job: MakeJob) -> None:
    request = Request.parse(make_job(), {"env": {"A": 1}, "shape": {"memory": "1Gi"}, "timeout": "5m"})
    assert request.changed == {"env": {"A": 1}, "shape": {"memory": "1Gi"}, "timeout": "5m"}


def test_overriding_a_run_leaves_the_template_as_it_is(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(env={"A": "b"}, args=["a"], shape={"cpu": 1})
    before = job.model_dump_json()
    spec_of(job, env={"A": "c"}, args=["b"])
    _shape(job, shape={"cpu": 4})
    assert job.model_dump_json() == before


def test_a_failed_container_is_kept_as_long_as_its_job_says(make_job: MakeJob, spec_of: SpecOf) -> None:
    assert spec_of(make_job(keep="1h")).keep_seconds == 3600
    assert [spec_of(job).keep_seconds for job in (make_job(), make_job(keep=0))] == [None, None]


def test_inputs_are_added_to_the_jobs_or_take_their_place(make_job: MakeJob, spec_of: SpecOf) -> None:
    job = make_job(inputs={"a": "s3://b/a", "b": "s3://b/b"})
    given = {"b": "gs://c/b", "c": "file:///srv/c"}
    assert spec_of(job, inputs=given).inputs == {"a": "s3://b/a", **given}


def test_an_input_of_the_store_is_refused_where_the_job_has_none(make_job: MakeJob) -> None:
    with pytest.raises(OverrideError, match=r"inputs\.a.*the job has none"):
        Request.parse(make_job(), {"inputs": {"a": "store://a"}})


def test_a_run_of_a_matrix_knows_its_place(make_job: MakeJob) -> None:
    request = Request.parse(make_job(), {"index": 3, "count": 7})
    assert (request.index, request.count) == (3, 7)
    assert request.changed == {}
