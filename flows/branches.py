"""The runs of one step as they are asked for: their number, their parameters, and what becomes of each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State

from prefect_jobs.errors import StepError
from prefect_jobs.job import OVERRIDES, Job
from prefect_jobs.matrix import MOST_BRANCHES
from prefect_jobs.outcome import Outcome
from prefect_jobs.parameters import Value
from prefect_jobs.pipeline import Each, Step
from prefect_jobs.references import filled, part_of
from prefect_jobs.request import Request

_MESSAGE = 300
CHILD_KEY = re.compile(r"(?P<run>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/(?P<step>[^/]+)/\d+/[0-9a-f]{12}/\d+")
"""The idempotency key of a run of a step: the key of its branch, and how often there was one before."""


@dataclass(slots=True)
class Branch:
    """One run of a step."""

    step: str
    index: int
    asked: dict[str, Any]
    """What the run is asked for: typed parameters, overrides, and its place."""
    varies: dict[str, Value]
    """The parameters in which it differs from its neighbours."""
    parameters: dict[str, Value]
    """All its typed parameters, those with a default, too."""
    run_id: UUID | None = None
    run_name: str | None = None
    state: str | None = None
    """The name of the state in which it ended."""
    succeeded: bool = False
    message: str = ""
    seconds: float | None = None
    outcome: Outcome | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state is not None

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.ended and not self.succeeded

    @property
    def result(self) -> Any:
        """What it left in result.json."""
        return None if self.outcome is None else self.outcome.result

    @property
    def became(self) -> str:
        """What became of it, in a word or two."""
        if self.state is None:
            return "running" if self.run_id is not None else "not begun"
        return str(self.outcome.reason) if self.outcome is not None else self.state.lower()

    @property
    def shown(self) -> str:
        """Its parameters for a person: ``MODEL_CLASS=svc, n=1``."""
        return ", ".join(f"{name}={_short(value)}" for name, value in self.varies.items())

    def key(self, run_id: UUID) -> str:
        """By which its runs are known among those of a pipeline's run."""
        text = json.dumps(self.asked, sort_keys=True, default=str)
        return f"{run_id}/{self.step}/{self.index}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def begun_as(self, flow_run: FlowRun) -> None:
        """Note the run that was started for it."""
        self.run_id, self.run_name = flow_run.id, flow_run.name

    def ended_as(self, flow_run: FlowRun | None) -> None:
        """Note how its run ended; None where it was deleted."""
        if flow_run is None:
            self.not_run("Deleted", "its run was deleted")
            return
        state: State[Any] | None = flow_run.state
        assert state is not None
        self.state = state.name or state.type.value.title()
        self.succeeded = state.is_completed()
        self.message = first_line(state.message)
        if flow_run.start_time is not None and flow_run.end_time is not None:
            self.seconds = max(0.0, (flow_run.end_time - flow_run.start_time).total_seconds())

    def not_run(self, state: str, why: str) -> None:
        """Note that it could not be run, and why."""
        self.state, self.message = state, first_line(why)


def first_line(text: str | None) -> str:
    """The first line of a message, no longer than a table takes."""
    line = (text or "").partition("\n")[0]
    return line if len(line) <= _MESSAGE else f"{line[:_MESSAGE]}…"


def branches(
    name: str,
    step: Step,
    job: Job,
    value_of: Callable[[str], Any],
    results: Callable[[str], Any],
    inputs: dict[str, str],
) -> list[Branch]:
    """The runs of a step.

    ``value_of`` gives what a reference stands for, ``results`` the result of a step that was needed; ``inputs`` are
    what the steps before it left.

    Raises:
        StepError: a reference names what is not there, a list is none, or the job does not take what it would get.
    """
    varied = _varied(step, value_of, results)
    common, overrides = filled(step.parameters, value_of), filled(step.overrides, value_of)
    made = []
    for index, varies in enumerate(varied):
        asked = {**common, **varies, **overrides}
        if step.is_many:
            asked |= {"index": index, "count": len(varied)}
        try:
            parameters = Request.parse(job, asked).parameters
        except ValueError as error:
            where = f"run {index} of step {name!r}" if step.is_many else f"step {name!r}"
            raise StepError(f"{where} cannot begin: {error}") from error
        if inputs:
            asked["inputs"] = {**asked.get("inputs", {}), **inputs}
        made.append(Branch(name, index, asked, varies, parameters))
    return made


def _varied(step: Step, value_of: Callable[[str], Any], results: Callable[[str], Any]) -> list[dict[str, Value]]:
    if step.matrix is not None:
        found: list[dict[str, Value]] = filled(step.matrix.branches(), value_of)
        return found
    return [{}] if step.each is None else _items(step.each, results(step.each.step))


def _items(each: Each, result: Any) -> list[dict[str, Value]]:
    """The parameters of a run for each item of a list."""
    what = f"each: the result of step {each.step!r}" + ("" if each.key is None else f" at {each.key!r}")
    try:
        items = result if each.key is None else part_of(result, each.key)
    except LookupError:
        raise StepError(
            f"{what} is not there; its job must leave it in result.json, and its log says where that cannot be read"
        ) from None
    if not isinstance(items, list):
        raise StepError(f"{what} is {_short(items)}, and no list")
    if len(items) > MOST_BRANCHES:
        raise StepError(f"{what} has {len(items)} items; a step takes at most {MOST_BRANCHES}")
    if each.as_ is not None:
        return [{each.as_: item} for item in items]
    for place, item in enumerate(items):
        if not isinstance(item, dict) or set(item) & set(OVERRIDES):
            raise StepError(f"{what}: item {place} is {_short(item)}, and no mapping of parameters; or say as: NAME")
    return items


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"
