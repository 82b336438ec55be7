"""The run form: a JSON Schema of typed parameters and overrides, drawn by the UI and held by the server."""

from __future__ import annotations

from typing import Any

from prefect_jobs.job import Job
from prefect_jobs.quantities import Cpu, Duration, Memory

_WORDS = {"type": "array", "items": {"type": "string"}}


def schema(job: Job) -> dict[str, Any]:
    """The deployment's parameter schema: the job's own parameters first, then what a run may override.

    ``job`` itself, the hidden parameter that carries the template, has no property, so that no form shows it; all
    other names are refused.
    """
    properties = {name: parameter.json_schema() for name, parameter in job.parameters.items()}
    properties |= _overrides(job)
    for position, (name, drawn) in enumerate(properties.items()):
        drawn |= {"title": name, "position": position}
    return {
        "title": "Parameters",
        "type": "object",
        "properties": properties,
        "required": [name for name, parameter in job.parameters.items() if parameter.required],
        "propertyNames": {"enum": [*properties, "job"]},
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
                {
                    "type": "object",
                    "title": "own",
                    "additionalProperties": False,
                    "properties": {
                        "cpu": {
                            "type": ["string", "number"],
                            "title": "cpu",
                            "description": Cpu.expects,
                            "position": 0,
                        },
                        "memory": {"type": "string", "title": "memory", "description": Memory.expects, "position": 1},
                        "gpu": {"type": "integer", "minimum": 0, "title": "gpu", "position": 2},
                        "shared_memory": {"type": "string", "title": "shared_memory", "position": 3},
                    },
                },
            ],
            "description": "CPU, memory and GPU: a name that the infrastructure defines, or figures of its own.",
        },
        "timeout": {"type": "string", "description": f"How long one attempt may run: {Duration.expects}."},
        "infrastructure": {
            "type": "string",
            "description": f"Where this run runs, in place of {job.infrastructure}: process, docker/local, …",
        },
    }


def _shown(words: list[str | int | float] | None) -> str:
    return "" if words is None else f" ({' '.join(map(str, words))})"
