"""A pipeline held against its jobs: whether each takes what its step gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefect_jobs.errors import OverrideError, TemplateError
from prefect_jobs.job import Job
from prefect_jobs.model import Problem
from prefect_jobs.parameters import Parameter
from prefect_jobs.pipeline import Pipeline, Step, best_parameter, texts_of
from prefect_jobs.references import reference_alone, references
from prefect_jobs.request import check_environment


def wiring_problems(pipeline: Pipeline, jobs: Mapping[str, Job]) -> Iterator[Problem]:
    """What a pipeline asks of jobs that they do not take, below the pipeline; ``jobs`` by name."""
    for name, step in pipeline.steps.items():
        job = jobs.get(step.job)
        if job is None:
            yield ("steps", name, "job"), f"no such job; there are: {', '.join(jobs) or 'none'}", step.job
            continue
        for where, words, found in _step_problems(pipeline, step, job, jobs):
            yield ("steps", name, *where), words, found
    yield from _store_problems(pipeline, jobs)


def check_wiring(pipeline: Pipeline, jobs: Mapping[str, Job]) -> None:
    """Refuse a pipeline that asks of its jobs what they do not take.

    Raises:
        TemplateError: the message names each step and key.
    """
    problems = [f"{'.'.join(map(str, where))}: {words}" for where, words, _ in wiring_problems(pipeline, jobs)]
    if problems:
        raise TemplateError(f"pipeline {pipeline.name!r}: {'; '.join(problems)}")


def _step_problems(pipeline: Pipeline, step: Step, job: Job, jobs: Mapping[str, Job]) -> Iterator[Problem]:
    given: set[str] = set()
    for where, name, value in _given(step):
        given.add(name)
        if where[0] == "matrix" and name in step.parameters:
            yield ("parameters", name), "is given by the matrix, too; keep one", step.parameters[name]
        if words := _wrong(pipeline, job, name, value):
            yield where, words, value
    if step.each is not None and step.each.as_ is not None:
        given.add(step.each.as_)
        if step.each.as_ not in job.parameters:
            yield ("each", "as"), _no_parameter(job), step.each.as_
        elif step.each.as_ in step.parameters:
            yield ("each", "as"), "is also under parameters; keep one", step.each.as_
    if step.each is None or step.each.as_ is not None:
        for name, parameter in job.parameters.items():
            if parameter.required and name not in given:
                yield (), f"the job {job.name!r} needs a value for parameter {name!r}, which has no default", {}
    try:
        check_environment(job, step.env or {})
    except OverrideError as error:
        yield ("env",), str(error), {}
    for need in step.needs:
        if need in job.inputs or need in (step.inputs or {}):
            yield ("needs",), f"the job has an input {need!r}, where this step's results would be; rename one", need
    for where, text in texts_of(step):
        for reference in references(text):
            if words := _unknown(pipeline, step, job, jobs, reference):
                yield where, words, text


def _given(step: Step) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """Each value that a step gives a parameter, and where."""
    for where, value in texts_of(step):
        if where[0] == "parameters":
            yield where, str(where[1]), value
        elif where[0] == "matrix":
            yield where, str(where[3] if where[1] == "include" else where[1]), value


def _wrong(pipeline: Pipeline, job: Job, name: str, value: Any) -> str | None:
    """What is wrong with a value for a parameter of a job, as far as that is known before the run."""
    if name not in job.parameters:
        return _no_parameter(job)
    wanted = job.parameters[name]
    if not any(references(value)):
        return wanted.problem_with(value)
    alone = reference_alone(value)
    if alone is None:
        return None if wanted.type in ("string", "list") else f"expected type {wanted.type!r}, and this is a text"
    if (given := pipeline.parameters.get(alone)) is None:
        return None
    if not _fits(given, wanted):
        return f"expected type {wanted.type!r}, and the pipeline's parameter {alone!r} is of type {given.type!r}"
    return None if given.default is None else wanted.problem_with(given.default)


def _fits(given: Parameter, wanted: Parameter) -> bool:
    same = given.type == wanted.type or (given.type, wanted.type) == ("integer", "number")
    return same and (wanted.type != "list" or given.items == wanted.items)


def _no_parameter(job: Job) -> str:
    return f"no such parameter; the job {job.name!r} has: {', '.join(job.parameters) or 'none'}"


def _unknown(pipeline: Pipeline, step: Step, job: Job, jobs: Mapping[str, Job], reference: str) -> str | None:
    shown = f"{{{{ {reference} }}}}"
    if (name := best_parameter(reference)) is not None:
        chosen = jobs.get(pipeline.steps[step.select.from_].job) if step.select else None
        if chosen is not None and name not in chosen.parameters:
            return f"{shown}: {_no_parameter(chosen)}"
        return None
    if reference.startswith(("best.", "steps.")) or reference in pipeline.parameters or reference in job.parameters:
        return None
    known = ", ".join([*pipeline.parameters, *job.parameters]) or "none"
    return f"{shown} names no parameter; the pipeline and the job have: {known}"


def _store_problems(pipeline: Pipeline, jobs: Mapping[str, Job]) -> Iterator[Problem]:
    """Steps hand over their results through one store; where no job has one, they hand over nothing but numbers."""
    linked = {name for step in pipeline.steps.values() if step.needs for name in step.needs}
    linked |= {name for name, step in pipeline.steps.items() if step.needs}
    stores = {
        name: job.state.block if job.state else None
        for name, step in pipeline.steps.items()
        if name in linked and (job := jobs.get(step.job)) is not None
    }
    first = next(((name, store) for name, store in stores.items() if store is not None), None)
    if first is None:
        return
    for name, store in stores.items():
        if store != first[1]:
            words = (
                f"steps hand over their results through one store: the job of step {first[0]!r} has the store "
                f"{first[1]!r}, and this one has {'none' if store is None else repr(store)}; give both the same store"
            )
            yield ("steps", name, "job"), words, pipeline.steps[name].job
