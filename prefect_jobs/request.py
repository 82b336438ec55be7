"""A run's request: typed parameters and overrides, and the container they make of a job's template."""

from __future__ import annotations

import posixpath
from typing import Any

from pydantic import Field, ValidationError

from prefect_jobs import parameters as typed
from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import OverrideError
from prefect_jobs.job import OVERRIDES, PLACE, Job, Timeouts, timeouts
from prefect_jobs.model import Model
from prefect_jobs.overrides import Overrides
from prefect_jobs.parameters import Value
from prefect_jobs.references import as_text
from prefect_jobs.spec import ContainerSpec, Shape, file_variable
from prefect_jobs.storage import input_problems
from prefect_jobs.wording import complaint, location


class Request(Model):
    """Everything that a run asks for."""

    parameters: dict[str, Value] = {}
    overrides: Overrides = Overrides()
    index: int = Field(default=0, ge=0)
    """Its place in a matrix or an array, from 0."""
    count: int = Field(default=1, ge=1)
    """How many runs that has."""

    @classmethod
    def parse(cls, job: Job, given: dict[str, Any]) -> Request:
        """Sort a run's parameters into typed parameters and overrides, and check both against the job.

        An empty override (an empty text, list or mapping, as a form sends it) changes nothing.

        Raises:
            OverrideError: the message names what is wrong and what is expected.
        """
        asked = {name: given[name] for name in OVERRIDES if given.get(name) not in (None, "", [], {})}
        try:
            overrides = Overrides.model_validate(asked)
        except ValidationError as error:
            problems = [
                f"override {'.'.join(map(str, location(found)))!r} of job {job.name!r}: {complaint(found, Overrides)}"
                for found in error.errors(include_url=False)
            ]
            raise OverrideError("; ".join(problems)) from None
        check_environment(job, overrides.env or {})
        _check_inputs(job, overrides.inputs or {})
        values = typed.resolve(
            job.parameters,
            {name: value for name, value in given.items() if name not in (*OVERRIDES, *PLACE)},
            f"job {job.name!r}",
        )
        return cls(parameters=values, overrides=overrides, **{name: given[name] for name in PLACE if name in given})

    @property
    def changed(self) -> dict[str, Any]:
        """The overrides that the run made, for its log."""
        return self.overrides.model_dump(mode="json", exclude_unset=True)


def check_environment(job: Job, env: dict[str, str | int | float]) -> None:
    """Refuse variables that a run cannot set.

    Raises:
        OverrideError: the message names the variable.
    """
    secrets = job.secret_sources
    files = {file_variable(name): name for name, source in secrets.items() if source.file is not None}
    for name in env:
        if name.startswith("_"):
            raise OverrideError(
                f"environment variable {name!r}: a leading underscore marks it as internal, so a run of job "
                f"{job.name!r} cannot set it; set it in the template"
            )
        if name in secrets:
            raise OverrideError(
                f"environment variable {name!r} is a secret of job {job.name!r}: a run cannot set it in plain text; "
                f"change the Prefect Secret block {secrets[name].block!r}"
            )
        if name in files:
            raise OverrideError(
                f"environment variable {name!r} is where job {job.name!r} finds the file of its secret "
                f"{files[name]!r}, and a run cannot set it"
            )


def _check_inputs(job: Job, inputs: dict[str, str]) -> None:
    for name, words, found in input_problems(inputs, job.store is not None):
        raise OverrideError(f"override 'inputs.{name}' of job {job.name!r}: {words}; found {found!r}")


def container_spec(deployed: DeployedJob, request: Request) -> ContainerSpec:
    """The container that a run makes of its template; its shape may still be a name (see `shape_name`)."""
    job, overrides = deployed.template, request.overrides
    sources = job.secret_sources
    limits = _timeouts(job, overrides)
    return ContainerSpec(
        image=deployed.image or job.image,
        command=_words(overrides.command or job.command, request.parameters),
        args=_words(overrides.args if overrides.args is not None else job.args, request.parameters),
        env={
            **{name: str(value) for name, value in job.env.items()},
            **{name: as_text(value) for name, value in request.parameters.items()},
            **{name: str(value) for name, value in (overrides.env or {}).items()},
        },
        secrets={name: source.block for name, source in sources.items()},
        secret_files={name: posixpath.basename(source.file) for name, source in sources.items() if source.file},
        inputs={**job.inputs, **(overrides.inputs or {})},
        mounts=job.mounts,
        security=job.security,
        pull_policy=job.pull_policy,
        grace_seconds=job.grace_period.seconds,
        start_timeout=limits.start.seconds if limits.start else None,
        attempt_timeout=limits.attempt.seconds if limits.attempt else None,
        keep_seconds=(job.keep.seconds or None) if job.keep else None,
    )


def infrastructure_of(job: Job, overrides: Overrides) -> str:
    """The infrastructure of a run as jobs name it: the run's, or else the job's."""
    return overrides.infrastructure or job.infrastructure


def shape(job: Job, overrides: Overrides, shapes: dict[str, Shape], where: str) -> Shape:
    """The compute shape of a run: the job's, changed by the run's; names are looked up in ``shapes``.

    Raises:
        OverrideError: a name that the infrastructure ``where`` does not define.
    """

    def named(value: str | Shape) -> Shape:
        if isinstance(value, Shape):
            return value
        if value not in shapes:
            raise OverrideError(f"shape {value!r}: {where} defines {', '.join(shapes) or 'no shapes'}")
        return shapes[value]

    asked = overrides.shape
    if asked is None:
        return named(job.shape)
    if isinstance(asked, str):
        return named(asked)
    return named(job.shape).model_copy(update={key: getattr(asked, key) for key in asked.model_fields_set})


def _timeouts(job: Job, overrides: Overrides) -> Timeouts:
    if overrides.timeout is None:
        return job.timeouts
    asked = timeouts(overrides.timeout)
    return job.timeouts.model_copy(update={key: getattr(asked, key) for key in asked.model_fields_set})


def total_timeout(job: Job, overrides: Overrides) -> float | None:
    """Seconds for all attempts of a run together, or None."""
    total = _timeouts(job, overrides).total
    return None if total is None else total.seconds


def _words(words: list[str | int | float] | None, values: dict[str, Value]) -> list[str] | None:
    return None if words is None else [typed.substitute(str(word), values) for word in words]
