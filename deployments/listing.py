"""What the command line lists and shows of jobs, pipelines and runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from prefect_jobs import document
from prefect_jobs.deployed import DeployedJob, DeployedPipeline
from prefect_jobs.deployments.apply import deployments
from prefect_jobs.deployments.kinds import KINDS, deployed_in, deployment_name, kind_of, template_of
from prefect_jobs.deployments.printing import as_table, without_links
from prefect_jobs.deployments.runs import find_run, read_template
from prefect_jobs.errors import NotFoundError, VersionError
from prefect_jobs.flows.records import outcomes
from prefect_jobs.flows.summary import table_of
from prefect_jobs.job import Job


async def list_jobs(client: PrefectClient) -> list[dict[str, Any]]:
    """A row for each job and each pipeline; one whose template cannot be read has a note that says why."""
    rows: list[dict[str, Any]] = []
    for deployment in await deployments(client):
        kind = kind_of(deployment.parameters)
        row: dict[str, Any] = {"job": deployment.name if kind == DeployedJob.kind else f"{kind}/{deployment.name}"}
        row |= {"version": deployment.version, "infrastructure": None, "image": None}
        row |= {"schedules": _schedules(deployment), "description": None}
        try:
            template = template_of(deployment)
        except VersionError as error:
            row["note"] = str(error)
        else:
            row["description"] = template.description
            if isinstance(template, Job):
                row |= {"infrastructure": template.infrastructure, "image": template.image}
        rows.append(row)
    return rows


def _schedules(deployment: DeploymentResponse) -> str:
    return ", ".join(
        f"{schedule.slug or schedule.id}{'' if schedule.active else ' (paused)'}" for schedule in deployment.schedules
    )


async def list_runs(client: PrefectClient, of: str | None, limit: int) -> list[dict[str, Any]]:
    """A row for each of the latest runs, or those ``of`` a job or a pipeline.

    Raises:
        NotFoundError: there is no such job or pipeline.
    """
    deployment = None if of is None else await read_template(client, of)
    found = await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(KINDS))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])) if deployment else None,
        # Schedules make runs days ahead; those are no latest runs.
        flow_run_filter=FlowRunFilter(
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC) + timedelta(seconds=5))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=limit,
    )
    return [_row(flow_run) for flow_run in found]


def _row(flow_run: FlowRun) -> dict[str, Any]:
    kind = kind_of(flow_run.parameters)
    name = flow_run.parameters[kind].get("template", {}).get("name") if kind else None
    start = flow_run.start_time or flow_run.expected_start_time
    return {
        "run": flow_run.name,
        "job": name if kind == DeployedJob.kind else f"{kind}/{name}" if kind else None,
        "state": flow_run.state.name if flow_run.state else None,
        "started": f"{start.astimezone():%Y-%m-%d %H:%M:%S}" if start else None,
        "seconds": round(flow_run.estimated_run_time.total_seconds(), 1),
        "version": flow_run.deployment_version,
        "id": str(flow_run.id),
    }


async def describe(client: PrefectClient, what: str) -> str:
    """A job or a pipeline as its document, or a run with its parameters and attempts.

    Raises:
        NotFoundError: it is neither.
    """
    try:
        deployment = await read_template(client, what)
    except NotFoundError as no_job:
        try:
            run = await find_run(client, what)
        except NotFoundError as no_run:
            raise NotFoundError(f"{no_job}\n{no_run}") from None
        return await _describe_run(client, run.flow_run)
    deployed = deployed_in(deployment)
    head = [f"# deployment: {deployment_name(deployed)}", f"# version: {deployment.version}"]
    if isinstance(deployed, DeployedPipeline):
        text = document.dumps([], [deployed.template])
    else:
        text = document.dumps([deployed.template])
        head += [f"# image: {deployed.image}"] if deployed.image else []
    head += [f"# schedules: {_schedules(deployment)}"] if deployment.schedules else []
    return "\n".join([*head, text.rstrip()])


async def _describe_run(client: PrefectClient, flow_run: FlowRun) -> str:
    fresh = await client.read_flow_run(flow_run.id)
    lines = [f"{key + ':':<10} {value}" for key, value in _row(fresh).items()]
    given = {name: value for name, value in fresh.parameters.items() if name not in KINDS}
    lines += [f"{'asked for:':<10} {given}"] if given else []
    lines += [f"{'tags:':<10} {', '.join(fresh.tags)}"] if fresh.tags else []
    for outcome in await outcomes(client, flow_run.id):
        took = "" if outcome.seconds is None else f" after {outcome.seconds:.1f} s"
        lines.append(f"attempt {outcome.attempt}{took}: {outcome.summary()}")
        lines += [f"    {line}" for line in outcome.tail]
    if fresh.state is not None and fresh.state.message:
        lines += ["message:", *(f"    {line}" for line in fresh.state.message.splitlines())]
    if rows := await table_of(client, fresh) if kind_of(fresh.parameters) == DeployedPipeline.kind else []:
        lines += ["", as_table(without_links(rows))]
    return "\n".join(lines)
