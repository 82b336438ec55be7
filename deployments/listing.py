"""What the command line lists and shows of jobs and runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from prefect_jobs import document
from prefect_jobs.deployments.apply import deployments, template_of
from prefect_jobs.deployments.runs import find_run, read_job
from prefect_jobs.errors import NotFoundError, VersionError
from prefect_jobs.flows.job import FLOW_NAME
from prefect_jobs.flows.records import outcomes


async def list_jobs(client: PrefectClient) -> list[dict[str, Any]]:
    """A row for each job; one whose template cannot be read has a note that says why."""
    rows: list[dict[str, Any]] = []
    for deployment in await deployments(client):
        row = {"job": deployment.name, "version": deployment.version}
        try:
            job = template_of(deployment)
        except VersionError as error:
            row |= {"infrastructure": None, "image": None, "schedules": _schedules(deployment), "description": None}
            row["note"] = str(error)
        else:
            row |= {"infrastructure": job.infrastructure, "image": job.image, "schedules": _schedules(deployment)}
            row["description"] = job.description
        rows.append(row)
    return rows


def _schedules(deployment: DeploymentResponse) -> str:
    return ", ".join(
        f"{schedule.slug or schedule.id}{'' if schedule.active else ' (paused)'}" for schedule in deployment.schedules
    )


async def list_runs(client: PrefectClient, job: str | None, limit: int) -> list[dict[str, Any]]:
    """A row for each of the latest runs.

    Raises:
        NotFoundError: there is no such job.
    """
    if job is not None:
        await read_job(client, job)
    found = await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW_NAME])),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[job])) if job else None,
        # Schedules make runs days ahead; those are no latest runs.
        flow_run_filter=FlowRunFilter(
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC) + timedelta(seconds=5))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=limit,
    )
    return [_row(flow_run) for flow_run in found]


def _row(flow_run: FlowRun) -> dict[str, Any]:
    deployed = flow_run.parameters.get("job")
    template = deployed.get("template", {}) if isinstance(deployed, dict) else {}
    start = flow_run.start_time or flow_run.expected_start_time
    return {
        "run": flow_run.name,
        "job": template.get("name"),
        "state": flow_run.state.name if flow_run.state else None,
        "started": f"{start.astimezone():%Y-%m-%d %H:%M:%S}" if start else None,
        "seconds": round(flow_run.estimated_run_time.total_seconds(), 1),
        "version": flow_run.deployment_version,
        "id": str(flow_run.id),
    }


async def describe(client: PrefectClient, what: str) -> str:
    """A job as its document, or a run with its parameters and attempts.

    Raises:
        NotFoundError: it is neither.
    """
    try:
        deployment = await read_job(client, what)
    except NotFoundError as no_job:
        try:
            run = await find_run(client, what)
        except NotFoundError as no_run:
            raise NotFoundError(f"{no_job}\n{no_run}") from None
        return await _describe_run(client, run.flow_run)
    job = template_of(deployment)
    image = deployment.parameters["job"].get("image")
    head = [f"# deployment: {FLOW_NAME}/{job.name}", f"# version: {deployment.version}"]
    head += [f"# image: {image}"] if image else []
    head += [f"# schedules: {_schedules(deployment)}"] if deployment.schedules else []
    return "\n".join([*head, document.dumps([job]).rstrip()])


async def _describe_run(client: PrefectClient, flow_run: FlowRun) -> str:
    fresh = await client.read_flow_run(flow_run.id)
    lines = [f"{key + ':':<10} {value}" for key, value in _row(fresh).items()]
    given = {name: value for name, value in fresh.parameters.items() if name != "job"}
    lines += [f"{'asked for:':<10} {given}"] if given else []
    lines += [f"{'tags:':<10} {', '.join(fresh.tags)}"] if fresh.tags else []
    for outcome in await outcomes(client, flow_run.id):
        took = "" if outcome.seconds is None else f" after {outcome.seconds:.1f} s"
        lines.append(f"attempt {outcome.attempt}{took}: {outcome.summary()}")
        lines += [f"    {line}" for line in outcome.tail]
    if fresh.state is not None and fresh.state.message:
        lines += ["message:", *(f"    {line}" for line in fresh.state.message.splitlines())]
    return "\n".join(lines)
