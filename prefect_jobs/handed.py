"""What a step of a pipeline hands to those that need it: the document ``results.json`` in the store."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from prefect_jobs.model import Model


class HandedRun(Model):
    """One run of the step."""

    index: int = Field(ge=0)
    """Its place among the runs of the step."""
    parameters: dict[str, Any] = {}
    """Its typed parameters."""
    outcome: str
    """What became of it, in a word or two."""
    run_id: str
    """The flow run's id."""
    run_name: str | None = None
    """The flow run's name."""
    result: Any = None
    """What it left in result.json."""
    outputs: str | None = None
    """The URI of its outputs, where it left some."""


class Handed(Model):
    """All runs of a step, and the best of them."""

    step: str
    """The step's name."""
    matrix: bool
    """Whether it is many runs."""
    branches: list[HandedRun]
    """Those that were begun, in their order."""
    best: int | None = None
    """The index of the best run, where a step selects one."""
