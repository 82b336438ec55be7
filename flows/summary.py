"""What a pipeline's run leaves for people: a table of all its runs, and a picture of its graph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from prefect.artifacts import MarkdownArtifact, TableArtifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.urls import url_for

from prefect_jobs.flows.branches import Branch, first_line
from prefect_jobs.flows.children import children_of, step_of
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.records import artifacts
from prefect_jobs.flows.steps import StepRun
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.selection import metric_of

_COLOURS = {
    "succeeded": "#c8e6c9,stroke:#2e7d32",
    "failed": "#ffcdd2,stroke:#c62828",
    "skipped": "#eeeeee,stroke:#757575",
}

_EMPTY = {
    "step": "",
    "index": None,
    "parameters": "",
    "metric": None,
    "best": "",
    "outcome": "",
    "seconds": None,
    "run": "",
    "link": "",
}
"""The columns of the table; those of a metric only where runs are compared."""

_MOST_NAMED = 20
_TITLE = "Pipeline "


async def keep_summary(
    client: PrefectClient, pipeline: Pipeline, flow_run: FlowRun, steps: Mapping[str, StepRun]
) -> None:
    """Keep table and picture as artifacts of a pipeline's run, whoever looks after it."""
    title = f"{_TITLE}{pipeline.name}: all runs of {flow_run.name}"
    await _keep(client, flow_run, TableArtifact(table=table(steps), description=title))
    title = f"{_TITLE}{pipeline.name}: the steps of {flow_run.name}"
    await _keep(client, flow_run, MarkdownArtifact(markdown=markdown(pipeline, steps), description=title))


async def _keep(client: PrefectClient, flow_run: FlowRun, kept: TableArtifact | MarkdownArtifact) -> None:
    data = await kept.aformat()
    artifact = ArtifactCreate(type=kept.type, description=kept.description, data=data, flow_run_id=flow_run.id)
    await insist(lambda: client.create_artifact(artifact), f"keep a {kept.type}")


async def table_of(client: PrefectClient, flow_run: FlowRun) -> list[dict[str, Any]]:
    """The table that a pipeline's run left; where it left none, or goes on, what it has started."""
    if flow_run.state is not None and flow_run.state.is_final():
        of_run, tables = ArtifactFilterFlowRunId(any_=[flow_run.id]), ArtifactFilterType(any_=["table"])
        async for artifact in artifacts(client, ArtifactFilter(flow_run_id=of_run, type=tables)):
            if (artifact.description or "").startswith(_TITLE):
                rows: list[dict[str, Any]] = json.loads(str(artifact.data))
                return rows
    return [_going(child) async for child in children_of(client, flow_run.id)]


def _going(child: FlowRun) -> dict[str, Any]:
    state = child.state.name if child.state is not None else None
    return {"step": step_of(child), "run": child.name, "state": state, "link": _url(child.id)}


def table(steps: Mapping[str, StepRun]) -> list[dict[str, Any]]:
    """A row for each run of each step, in their order, and one for each step without a run."""
    metrics = _metrics(steps)
    best = {(chosen.step, chosen.index) for step in steps.values() if (chosen := step.best(steps)) is not None}
    rows = []
    for step in steps.values():
        of_it = [_row(branch, metrics, (branch.step, branch.index) in best) for branch in step.branches]
        rows += of_it or [_row_without_run(step, bool(metrics))]
    return rows


def _metrics(steps: Mapping[str, StepRun]) -> dict[str, str]:
    """The step whose runs are compared: by which number."""
    selects = [step.step.select for step in steps.values() if step.step.select is not None]
    return {select.from_: select.metric for select in reversed(selects)}


def _row(branch: Branch, metrics: dict[str, str], is_best: bool) -> dict[str, Any]:
    metric = metrics.get(branch.step)
    return _cells(
        bool(metrics),
        step=branch.step,
        index=branch.index,
        parameters=branch.shown,
        metric=None if metric is None else metric_of(branch.result, metric),
        best="best" if is_best else "",
        outcome=branch.became + (f": {branch.message}" if branch.failed and branch.message else ""),
        seconds=None if branch.seconds is None else round(branch.seconds, 1),
        run=branch.run_name or "",
        link=_url(branch.run_id),
    )


def _row_without_run(step: StepRun, compares: bool) -> dict[str, Any]:
    said = first_line(step.said)
    return _cells(compares, step=step.name, outcome=f"failed: {said}" if step.became == "failed" else said or "no run")


def _cells(compares: bool, **cells: Any) -> dict[str, Any]:
    """A row with its columns in their order; what is not given is empty."""
    return {
        column: cells.get(column, empty)
        for column, empty in _EMPTY.items()
        if compares or column not in ("metric", "best")
    }


def markdown(pipeline: Pipeline, steps: Mapping[str, StepRun]) -> str:
    """The graph as a diagram, and below it what became of each step in words."""
    numbers = {name: f"s{number}" for number, name in enumerate(steps)}
    lines = ["```mermaid", "flowchart LR"]
    for name, step in steps.items():
        lines.append(f'    {numbers[name]}["{name}<br/>{_words(step)}"]:::{step.became or "skipped"}')
    for name, step in steps.items():
        lines += [f"    {numbers[need]} --> {numbers[name]}" for need in step.step.needs]
    lines += [f"    classDef {name} fill:{colour},color:#000" for name, colour in _COLOURS.items()]
    lines += ["```", "", "| step | job | needs | runs | became |", "|---|---|---|---|---|"]
    for name, step in steps.items():
        needs = ", ".join(step.step.needs)
        lines.append(f"| {name} | {step.step.job} | {needs} | {_words(step)} | {_cell(step.why) or step.became} |")
    return "\n".join([*lines, "", *_named(steps)])


def _named(steps: Mapping[str, StepRun]) -> Iterator[str]:
    """The best runs and the first that failed, with links: tables have none."""
    for step in steps.values():
        if (best := step.best(steps)) is not None and step.choice is not None and step.step.select is not None:
            yield f"- the best of {best.step}: {_link(best)}, {step.step.select.metric} = {step.choice.metric}"
    failed = [branch for step in steps.values() for branch in step.branches if branch.failed]
    for branch in failed[:_MOST_NAMED]:
        yield f"- {branch.became}: {_link(branch)}: {_cell(branch.message)}"
    if len(failed) > _MOST_NAMED:
        yield f"- and {len(failed) - _MOST_NAMED} more, in the table of all runs"


def _link(branch: Branch) -> str:
    shown = f" ({_cell(branch.shown)})" if branch.shown else ""
    return (
        f"[{branch.run_name}]({_url(branch.run_id)}){shown}"
        if branch.run_id is not None
        else f"run {branch.index}{shown}"
    )


def _url(run_id: UUID | None) -> str:
    return "" if run_id is None else url_for("flow-run", obj_id=run_id) or str(run_id)


def _words(step: StepRun) -> str:
    if not step.branches:
        return "no run"
    succeeded = sum(branch.succeeded for branch in step.branches)
    return f"{succeeded} of {len(step.branches)} succeeded" if step.step.is_many else step.branches[0].became


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
