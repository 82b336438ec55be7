"""The pipeline template: a graph of steps, each a run of a job or many of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, Tag, field_validator, model_validator

from prefect_jobs import parameters as typed
from prefect_jobs._upstairs import upstairs
from prefect_jobs.graph import find_cycle
from prefect_jobs.job import (
    Concurrency,
    Count,
    InputName,
    Limit,
    Schedule,
    check_infrastructure,
    schedule_problems,
)
from prefect_jobs.matrix import Matrix
from prefect_jobs.model import MAPPING, PLAIN, ByKind, Model, Problem, refuse
from prefect_jobs.names import DEFAULT_WORK_POOL, NAME
from prefect_jobs.overrides import Overrides
from prefect_jobs.parameters import Parameter, Value
from prefect_jobs.quantities import Duration
from prefect_jobs.references import reference_alone, references
from prefect_jobs.selection import Mode
from prefect_jobs.storage import check_uri

# Beside what Prefect and `Pipeline.run` take: the template, and what references mean otherwise.
RESERVED_PARAMETERS = frozenset({"pipeline", "best", "steps", "run_name", "run_tags", "return_state", "wait_for"})
BEST = ("best.metric", "best.index", "best.outputs")
_BEST_PARAMETERS = "best.parameters."

StepName = Annotated[str, Field(pattern=NAME)]
Became = Literal["succeeded", "failed", "skipped"]
ResultKey = Annotated[str, Field(min_length=1, examples=["accuracy", "scores.test"])]


def _infrastructure(name: str) -> str:
    """Refuse what is neither an infrastructure nor a reference to one."""
    return name if reference_alone(name) is not None else check_infrastructure(name)


class Each(Model):
    """A run for each item of a list that an earlier step left in its result.json."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    step: StepName
    """The step with the list; one that this one needs, and a single run."""
    key: ResultKey | None = None
    """Where in the step's result the list is; without it the result itself is the list."""
    as_: str | None = Field(default=None, alias="as")
    """The parameter that an item is; left out where items are mappings, whose keys are parameters."""


class Select(Model):
    """The best run of an earlier step, by a number in its result.json."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    from_: StepName = Field(alias="from")
    """The step whose runs are compared; one that this one needs."""
    metric: ResultKey
    """Where in the result the number is."""
    mode: Mode = "max"
    """Whether the largest or the smallest is the best; of several the first one."""


class Share(Model):
    """How many of a step's runs must succeed."""

    succeed_at_least: float = Field(gt=0, le=1)
    """The share of them, such as 0.9."""


class Step(Overrides):
    """A step: a run of a job, or many of them. Texts may hold references such as ``{{ test_size }}``."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    job: str = Field(pattern=NAME)
    """The job that it runs."""
    needs: list[StepName] = []
    """The steps that must have ended before it begins."""
    parameters: dict[str, Value] = {}
    """Typed parameters of the job. A reference that stands alone keeps the type of what it refers to."""
    infrastructure: Annotated[str, AfterValidator(_infrastructure)] | None = None
    """Where its runs run; ``{{ name }}`` leaves the choice to a parameter of the pipeline."""
    inputs: dict[InputName, str] | None = None
    """Inputs, added to the job's or in place of them."""
    matrix: Matrix | None = None
    """Many runs: each combination of these values."""
    each: Each | None = None
    """Many runs: one for each item of a list that an earlier step left."""
    at_once: Limit | None = None
    """How many of its runs go at the same time; without it there is no limit of its own."""
    on_failure: Annotated[
        Annotated[Literal["stop", "continue"], Tag(PLAIN)] | Annotated[Share, Tag(MAPPING)], ByKind
    ] = "stop"
    """When a run fails: begin no further one and fail, count as done all the same, or fail below a share."""
    if_: dict[StepName, Became] = Field(default={}, alias="if")
    """What must have become of steps that it needs, for it to begin; else it is skipped."""
    always: bool = False
    """Whether it begins whatever became of what it needs, also when the pipeline is cancelled: clean-up."""
    select: Select | None = None
    """Choose the best run of an earlier step; ``{{ best.parameters.NAME }}`` is then one of its parameters."""

    @field_validator("inputs")
    @classmethod
    def _inputs_are_uris(cls, inputs: dict[str, str] | None) -> dict[str, str] | None:
        refuse("Step", _uri_problems(inputs or {}))
        return inputs

    @property
    def is_many(self) -> bool:
        """Whether it is many runs, as one, too, where there is only one."""
        return self.matrix is not None or self.each is not None

    @property
    def overrides(self) -> dict[str, Any]:
        """What it changes of the job, as a run is asked for it; references stand as they were written."""
        overrides = Overrides.model_construct(
            {name for name in Overrides.model_fields if name in self.model_fields_set},
            **{name: getattr(self, name) for name in Overrides.model_fields},
        )
        return overrides.as_form()

    def document(self) -> dict[str, Any]:
        """The mapping that stands below the step's name: what was set, as it was written."""
        dumped = self.model_dump(mode="json", exclude_unset=True, by_alias=True)
        own = [field.alias or name for name, field in Step.model_fields.items() if name not in Overrides.model_fields]
        return {key: dumped[key] for key in dict.fromkeys([*own, *dumped]) if key in dumped}


def _uri_problems(inputs: dict[str, str]) -> Iterator[Problem]:
    for name, uri in inputs.items():
        if any(references(uri)):
            continue
        try:
            check_uri(uri)
        except ValueError as error:
            yield (name,), str(error), uri


class PipelineRetries(Model):
    """How often a run that fails begins again what did not succeed, and after how long."""

    failures: Count = 0
    """How often."""
    delay: Duration = Duration(0)
    """How long to wait before each time."""


class Pipeline(Model):
    """A pipeline: steps that run jobs, in the order that they need each other.

    Example:
        >>> pipeline = Pipeline(name="search", steps={
        ...     "fit": Step(job="train", matrix={"MODEL_CLASS": ["svc", "forest"]}, at_once=4),
        ...     "final": Step(job="train", needs=["fit"], select={"from": "fit", "metric": "accuracy"},
        ...                   parameters={"MODEL_CLASS": "{{ best.parameters.MODEL_CLASS }}"})})
    """

    name: str = Field(pattern=NAME, exclude=True)
    """The name: its deployment is pipeline/<name>."""
    project: str | None = Field(default=None, pattern=NAME, exclude=True)
    """The project of the file that it came from; pruning stays inside a project."""
    description: str | None = None
    """What it does; shown in the Prefect UI."""
    parameters: dict[str, Parameter] = {}
    """What a run may be asked for: the run form. ``{{ name }}`` in a step is the value."""
    steps: dict[StepName, Step] = Field(min_length=1)
    """The steps by name, in the order in which they are shown."""
    retries: Annotated[Annotated[Count, Tag(PLAIN)] | Annotated[PipelineRetries, Tag(MAPPING)], ByKind] = 0
    """How often a run that fails begins again, in the same run, what did not succeed; a number waits for nothing."""
    concurrency: Annotated[Annotated[Limit, Tag(PLAIN)] | Annotated[Concurrency, Tag(MAPPING)], ByKind] | None = None
    """How many runs of the pipeline at once; a number queues those beyond it."""
    schedules: list[Schedule] = []
    """When it starts by itself."""
    tags: list[str] = []
    """Tags of the deployment and of its runs."""

    @model_validator(mode="after")
    def _is_whole(self) -> Pipeline:
        refuse("Pipeline", self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """What the keys of a pipeline say against each other."""
        for name in self.parameters:
            try:
                typed.check_name(name, RESERVED_PARAMETERS)
            except ValueError as error:
                yield ("parameters", name), str(error), name
        for name, step in self.steps.items():
            for where, words, found in _Checked(self, name, step).problems():
                yield ("steps", name, *where), words, found
        known = {name: [need for need in step.needs if need in self.steps] for name, step in self.steps.items()}
        if cycle := find_cycle(known):
            words = f"steps wait for each other: {' needs '.join([*cycle, cycle[0]])}"
            yield ("steps", cycle[0], "needs"), words, cycle[1] if len(cycle) > 1 else cycle[0]
        yield from schedule_problems(self.schedules, self.parameters, "pipeline")

    @property
    def concurrency_policy(self) -> Concurrency | None:
        """The concurrency limit, spelled out."""
        return Concurrency(limit=self.concurrency) if isinstance(self.concurrency, int) else self.concurrency

    @property
    def retry_policy(self) -> PipelineRetries:
        """The retries, spelled out."""
        return PipelineRetries(failures=self.retries) if isinstance(self.retries, int) else self.retries

    @property
    def jobs(self) -> list[str]:
        """The names of the jobs that its steps run."""
        return list(dict.fromkeys(step.job for step in self.steps.values()))

    def document(self) -> dict[str, Any]:
        """The mapping that stands below the pipeline's name in a document: what was set, as it was written."""
        document = self.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return {**document, "steps": {name: step.document() for name, step in self.steps.items()}}

    def apply(self, *, work_pool: str | None = DEFAULT_WORK_POOL) -> Any:
        """Make or update the deployment ``pipeline/<name>``; the same template changes nothing.

        Its jobs must be applied already. Returns the change that was made; in a running event loop, an awaitable of it.
        """
        return upstairs("prefect_jobs.deployments.apply:apply_pipeline")(self, work_pool=work_pool)

    def run(self, /, *, run_name: str | None = None, run_tags: list[str] | None = None, **parameters: Any) -> Any:
        """Start a run of the pipeline's deployment and return its `JobRun`; in a running event loop, an awaitable.

        Keywords are its typed parameters; ``run_name`` and ``run_tags`` name and tag the run.
        """
        start = upstairs("prefect_jobs.deployments.runs:start_pipeline")
        return start(self.name, parameters, run_name=run_name, run_tags=run_tags)


class _Checked:
    """A step, held against the pipeline that it is in."""

    def __init__(self, pipeline: Pipeline, name: str, step: Step) -> None:
        self._pipeline = pipeline
        self._name = name
        self._step = step

    def problems(self) -> Iterator[Problem]:
        """What is wrong with it, below the step."""
        step, steps = self._step, self._pipeline.steps
        for place, need in enumerate(step.needs):
            if need not in steps:
                yield ("needs", place), f"no such step; the pipeline has: {', '.join(steps)}", need
            elif need in step.needs[:place]:
                yield ("needs", place), "is there twice; keep one", need
        if step.matrix is not None and step.each is not None:
            yield ("each",), "expected a matrix or each, not both; keep one", step.each
        if step.at_once is not None and not step.is_many:
            yield ("at_once",), "belongs to a step of many runs; add matrix or each, or take it out", step.at_once
        for need in step.if_:
            if need not in step.needs:
                yield ("if", need), _is_needed(step), need
        yield from self._each_problems()
        if step.select is not None and step.select.from_ not in step.needs:
            yield ("select", "from"), _is_needed(step), step.select.from_
        yield from self._infrastructure_problems()
        for where, text in texts_of(step):
            for reference in references(text):
                if (wrong := self._problem_with(reference, where)) is not None:
                    yield where, wrong, text

    def _each_problems(self) -> Iterator[Problem]:
        step, each = self._step, self._step.each
        if each is None:
            return
        if each.step not in step.needs:
            yield ("each", "step"), _is_needed(step), each.step
        elif (its := self._pipeline.steps.get(each.step)) is not None and its.is_many:
            yield ("each", "step"), "expected a step that is a single run; this one has a matrix or each", each.step

    def _infrastructure_problems(self) -> Iterator[Problem]:
        """What a parameter may be that is no infrastructure, where it chooses one."""
        chosen = self._pipeline.parameters.get(reference_alone(self._step.infrastructure) or "")
        values: list[Any] = [] if chosen is None else list(chosen.enum or ()) or [chosen.default]
        for value in values:
            if value is None:
                continue
            try:
                check_infrastructure(str(value))
            except ValueError as error:
                yield ("infrastructure",), f"{self._step.infrastructure} may be {value!r}: {error}", value

    def _problem_with(self, reference: str, where: tuple[str | int, ...]) -> str | None:
        """What is wrong with a reference, as far as the pipeline alone tells."""
        shown, step = f"{{{{ {reference} }}}}", self._step
        if reference in self._pipeline.parameters:
            return None
        if reference == "best" or reference.startswith("best."):
            if step.select is None:
                return f"{shown} is the best run of an earlier step; say which under select"
            if reference in BEST or reference.startswith(_BEST_PARAMETERS):
                return None
            return f"{shown}: expected one of {', '.join(BEST)}, {_BEST_PARAMETERS}NAME"
        if reference.startswith("steps."):
            return self._problem_with_step(reference, shown)
        if where[0] in ("args", "command"):
            return None  # A parameter of the job, which fills it in itself.
        known = ", ".join(self._pipeline.parameters) or "none"
        return f"{shown} names no parameter; the pipeline has: {known}"

    def _problem_with_step(self, reference: str, shown: str) -> str | None:
        found = step_in(reference, self._pipeline.steps)
        if found is None:
            return f"{shown}: expected steps.STEP.result.KEY with a step of the pipeline"
        name, _ = found
        if name not in self._step.needs:
            return f"{shown}: the step does not need {name!r}; add it to its needs"
        if self._pipeline.steps[name].is_many:
            return f"{shown}: the step {name!r} is many runs; choose one of them with select"
        return None


def texts_of(step: Step) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values of a step that may hold references, and where below the step each is."""
    for name, value in step.parameters.items():
        yield ("parameters", name), value
    yield ("infrastructure",), step.infrastructure
    for key in ("env", "inputs"):
        for name, value in (getattr(step, key) or {}).items():
            yield (key, name), value
    for key in ("args", "command"):
        for place, word in enumerate(getattr(step, key) or []):
            yield (key, place), word
    if step.matrix is not None:
        for name, values in step.matrix.axes.items():
            for place, value in enumerate(values):
                yield ("matrix", name, place), value
        for place, branch in enumerate(step.matrix.include):
            for name, value in branch.items():
                yield ("matrix", "include", place, name), value


def _is_needed(step: Step) -> str:
    return f"expected a step that it needs, which are: {', '.join(step.needs) or 'none'}; add it to its needs"


def step_in(reference: str, steps: dict[str, Step]) -> tuple[str, str | None] | None:
    """The step and the key in ``steps.STEP.result.KEY``; the key is None where the whole result is meant."""
    for name in sorted(steps, key=len, reverse=True):
        head = f"steps.{name}.result"
        if reference == head:
            return name, None
        if reference.startswith(f"{head}."):
            return name, reference.removeprefix(f"{head}.")
    return None


def best_parameter(reference: str) -> str | None:
    """The parameter in ``best.parameters.NAME``."""
    return reference.removeprefix(_BEST_PARAMETERS) if reference.startswith(_BEST_PARAMETERS) else None
