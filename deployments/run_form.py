"""The run form: a JSON Schema of typed parameters and overrides, drawn by the UI and held by the server."""

from __future__ import annotations

from typing import Any

from prefect_jobs.job import INFRASTRUCTURE_NAME, PLACE, Job
from prefect_jobs.names import PIPELINE
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.quantities import Duration

_WORDS = {"type": "array", "items": {"type": "string"}}
# Short, for they stand in messages; what gets past them is still held against the template when the run starts.
_DURATION = "([0-9.]+[dhms]?)+"
_AMOUNT = "[0-9.]+[kMGTP]?i?"


def schema(template: Job | Pipeline) -> dict[str, Any]:
    """The deployment's parameter schema: the typed parameters first, then what a run of a job may override.

    The hidden parameter that carries the template has no property, so that no form shows it; all other names are
    refused.
    """
    properties = {name: parameter.json_schema() for name, parameter in template.parameters.items()}
    hidden: tuple[str, ...] = (PIPELINE,)
    if isinstance(template, Job):
        properties |= _overrides(template)
        hidden = ("job", *PLACE)
    return {
        "title": "Parameters",
        "type": "object",
        "properties": _in_order(properties),
        "required": [name for name, parameter in template.parameters.items() if parameter.required],
        "propertyNames": {"enum": [*properties, *hidden]},
    }


def _overrides(job: Job) -> dict[str, dict[str, Any]]:
    """What a run may change, without defaults: what a form leaves out stays as the template has it."""
    return {
        "env": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number"]},
            "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_]*$"},
            "description": "Environment variables, added to the job's or in place of them.",
        },
        "args": {**_WORDS, "description": f"Arguments in place of the job's{_shown(job.args)}."},
        "command": {**_WORDS, "description": f"The command in place of the job's{_shown(job.command)}."},
        "shape": {
            "anyOf": [
                {"type": "string", "title": "name"},
                _mapping(
                    "own",
                    {
                        "cpu": {"type": "number", "exclusiveMinimum": 0, "description": "CPU cores, such as 2 or 0.5."},
                        "memory": _text(_AMOUNT, "Such as 512Mi or 4Gi; a plain number is bytes."),
                        "gpu": {"type": "integer", "minimum": 0},
                        "shared_memory": _text(_AMOUNT, "Size of /dev/shm."),
                    },
                ),
            ],
            "description": "CPU, memory and GPU: a name that the infrastructure defines, or figures of its own.",
        },
        "timeout": {
            "anyOf": [
                _text(_DURATION, title="attempt"),
                _mapping("each", {name: _text(_DURATION, words) for name, words in _TIMEOUTS.items()}),
            ],
            "description": f"How long one attempt may run: {Duration.expects}; or each timeout.",
        },
        "infrastructure": _text(
            INFRASTRUCTURE_NAME, f"Where this run runs, in place of {job.infrastructure}: process, docker/local, …"
        ),
        "inputs": {
            "type": "object",
            "additionalProperties": {"type": "string", "pattern": "^[a-z0-9]+://"},
            "description": "Inputs by name, added to the job's or in place of them: URIs such as s3://bucket/iris.csv.",
        },
    }


_TIMEOUTS = {
    "attempt": "One attempt, from the container's start.",
    "total": "All attempts and the waits between them.",
    "start": "Until the container has started.",
}


def _text(pattern: str, description: str | None = None, **fields: Any) -> dict[str, Any]:
    """A line of text; left empty, it changes nothing."""
    described = {} if description is None else {"description": description}
    return {"type": "string", "pattern": f"^({pattern})?$", **described, **fields}


def _mapping(title: str, fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "object", "title": title, "additionalProperties": False, "properties": _in_order(fields)}


def _in_order(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fields by name, drawn in this order."""
    return {name: {**field, "title": name, "position": place} for place, (name, field) in enumerate(fields.items())}


def _shown(words: list[str | int | float] | None) -> str:
    return "" if words is None else f" ({' '.join(map(str, words))})"
