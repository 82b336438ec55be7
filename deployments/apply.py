"""From templates to deployments: the same templates change nothing, a changed one becomes a new version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.exceptions import ObjectNotFound

from prefect_jobs.blocks.loading import load_infrastructure, load_store
from prefect_jobs.deployed import DeployedJob, DeployedPipeline
from prefect_jobs.deployments import run_form, schedules
from prefect_jobs.deployments.both_ways import both_ways
from prefect_jobs.deployments.kinds import ENTRYPOINTS, KINDS, deployment_name, kind_of, template_of
from prefect_jobs.deployments.work_pool import ensure_work_pool
from prefect_jobs.errors import JobError, OverrideError, TemplateError
from prefect_jobs.job import Job
from prefect_jobs.names import DEFAULT_WORK_POOL
from prefect_jobs.overrides import Overrides
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.request import Request, container_spec, shape
from prefect_jobs.wiring import check_wiring

_STRATEGIES = {"queue": ConcurrencyLimitStrategy.ENQUEUE, "refuse": ConcurrencyLimitStrategy.CANCEL_NEW}
_PAGE = 200
# From reading a schedule to writing its runs Prefect's scheduler, which tells nobody, takes less, as a rule.
_SCHEDULER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """What applying did to the deployment of one job or pipeline."""

    name: str
    """The deployment: ``job/train`` or ``pipeline/search``."""
    what: Literal["created", "updated", "unchanged", "removed"]
    version: str | None = None
    details: tuple[str, ...] = ()
    """The fields and schedules that were changed."""
    deployment_id: UUID | None = None


async def apply_all(
    jobs: Iterable[Job],
    pipelines: Iterable[Pipeline] = (),
    *,
    work_pool: str | None = DEFAULT_WORK_POOL,
    prune: bool = False,
    project: str | None = None,
) -> list[Change]:
    """Apply jobs, and pipelines of theirs or of jobs that are there; everything is checked before the first change.

    ``prune`` removes the other jobs and pipelines of their project. ``project`` names it where none of them may be
    left.

    Raises:
        TemplateError: a job is wrong, or asks for more than its infrastructure block allows; a pipeline is wrong, or
            gives its jobs what they do not take.
        InfrastructureError: an image cannot be pinned.
    """
    jobs, pipelines = list(jobs), list(pipelines)
    project = _project_to_prune([*jobs, *pipelines], project) if prune else None
    deployed: list[DeployedJob | DeployedPipeline] = [await _checked(job) for job in jobs]
    async with get_client() as client:
        deployed += [await _wired(client, pipeline, jobs) for pipeline in pipelines]
        if work_pool is not None:
            await ensure_work_pool(client, work_pool)
        flows = {kind: await client.create_flow_from_name(kind) for kind in {each.kind for each in deployed}}
        removed: list[UUID] = []
        changes = [await _apply_one(client, flows[each.kind], each, work_pool, removed) for each in deployed]
        if removed:
            await asyncio.sleep(_SCHEDULER_SECONDS)
            await schedules.drop_runs(client, removed)
        if project is not None:
            changes += await _prune(client, project, set(map(deployment_name, deployed)))
    return changes


apply = both_ways(apply_all)


@both_ways
async def apply_job(job: Job, *, work_pool: str | None = DEFAULT_WORK_POOL) -> Change:
    """Apply one job (see `apply_all`)."""
    return (await apply_all([job], work_pool=work_pool))[0]


@both_ways
async def apply_pipeline(pipeline: Pipeline, *, work_pool: str | None = DEFAULT_WORK_POOL) -> Change:
    """Apply one pipeline whose jobs are there (see `apply_all`)."""
    return (await apply_all([], [pipeline], work_pool=work_pool))[0]


async def _wired(client: PrefectClient, pipeline: Pipeline, jobs: list[Job]) -> DeployedPipeline:
    """A pipeline as it is deployed: held against its jobs, those given and those that are there.

    Raises:
        TemplateError: the message names step and key.
    """
    try:
        schedules.check(pipeline)
        known = {job.name: job for job in jobs}
        for name in pipeline.jobs:
            if name not in known:
                with suppress(ObjectNotFound):
                    there = await client.read_deployment_by_name(f"{DeployedJob.kind}/{name}")
                    if kind_of(there.parameters) == DeployedJob.kind:
                        known[name] = cast("Job", template_of(there))
        check_wiring(pipeline, known)
    except JobError as error:
        error.key = f"pipelines.{pipeline.name}"
        raise
    return DeployedPipeline(template=pipeline)


async def _checked(job: Job) -> DeployedJob:
    """The job as it is deployed; an error says which job it is about."""
    try:
        return await pinned(job)
    except JobError as error:
        error.key = f"jobs.{job.name}"
        raise


async def pinned(job: Job) -> DeployedJob:
    """The job as it is deployed: held against its infrastructure block, its image pinned by digest.

    Raises:
        TemplateError: the job asks for more than the block allows, or for a shape that it does not define.
        NotFoundError: the block of its infrastructure or of its store is not saved.
        InfrastructureError: the image cannot be pinned.
    """
    infrastructure = await load_infrastructure(job.infrastructure)
    try:
        shape(job, Overrides(), infrastructure.shapes, infrastructure.label)
    except OverrideError as error:
        raise TemplateError(f"job {job.name!r}: {error}") from error
    plain = DeployedJob(template=job)
    # A required parameter has no value yet; any will do to see what container the job makes.
    stand_ins = {name: job.parameters[name].default for name in job.parameters}
    spec = container_spec(plain, Request(parameters={n: "" if v is None else v for n, v in stand_ins.items()}))
    infrastructure.check(spec, job.name)
    schedules.check(job)
    if job.state is not None:
        await load_store(job.state.block)
    if job.image is None or not infrastructure.takes_images:
        return plain
    async with infrastructure.engine() as engine:
        return DeployedJob(template=job, image=await engine.pin(job.image, job.pull_policy))


def _project_to_prune(templates: list[Job | Pipeline], project: str | None) -> str:
    projects = {template.project for template in templates} | ({project} if project is not None else set())
    if len(projects) > 1:
        raise TemplateError(
            "pruning stays within one project, and these are of more than one project: "
            + ", ".join(sorted(str(each or "none") for each in projects))
        )
    if not projects or None in projects:
        raise TemplateError(
            "pruning removes the jobs and pipelines of a project that are no longer in its file, and the file names no "
            "project: write 'project: NAME' at its top, apply it once, then prune"
        )
    return str(projects.pop())


async def _apply_one(
    client: PrefectClient,
    flow_id: UUID,
    deployed: DeployedJob | DeployedPipeline,
    work_pool: str | None,
    removed: list[UUID],
) -> Change:
    """Apply one; ``removed`` gets the schedules that are gone."""
    name, template = deployment_name(deployed), deployed.template
    wanted = _fields(deployed, work_pool)
    try:
        there = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        deployment_id = await client.create_deployment(
            flow_id=flow_id, name=template.name, schedules=schedules.creations(template), **_for_creation(wanted)
        )
        return Change(name, "created", deployed.version, deployment_id=deployment_id)
    wanted["entrypoint"] = ENTRYPOINTS[deployed.kind](template.parameters, there.entrypoint)
    details = [field for field, value in wanted.items() if _current(there, field) != value]
    if details:
        await client.update_deployment(there.id, DeploymentUpdate(**{field: wanted[field] for field in details}))
    details += await schedules.reconcile(client, there, template, removed)
    return Change(name, "updated" if details else "unchanged", deployed.version, tuple(details), there.id)


def _fields(deployed: DeployedJob | DeployedPipeline, work_pool: str | None) -> dict[str, Any]:
    """Every field of the deployment that the template decides."""
    template = deployed.template
    concurrency = template.concurrency_policy
    return {
        "version": deployed.version,
        "description": template.description or "",
        "parameters": {deployed.kind: deployed.document()},
        "parameter_openapi_schema": run_form.schema(template),
        "enforce_parameter_schema": True,
        "entrypoint": ENTRYPOINTS[deployed.kind](template.parameters),
        "tags": template.tags,
        "work_pool_name": work_pool,
        "concurrency_limit": concurrency.limit if concurrency else None,
        "concurrency_options": (
            ConcurrencyOptions(collision_strategy=_STRATEGIES[concurrency.beyond]) if concurrency else None
        ),
    }


def _for_creation(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _current(there: DeploymentResponse, name: str) -> Any:
    """A field of the deployment as it is on the server."""
    match name:
        case "concurrency_limit":
            return there.global_concurrency_limit.limit if there.global_concurrency_limit else None
        case "tags":
            return list(there.tags)
        case "description":
            return there.description or ""
        case "concurrency_options":
            options = there.concurrency_options
            return ConcurrencyOptions(collision_strategy=options.collision_strategy) if options else None
        case _:
            return getattr(there, name)


async def deployments(client: PrefectClient) -> list[DeploymentResponse]:
    """All deployments that are jobs, by name, then all that are pipelines."""
    found: list[DeploymentResponse] = []
    for kind in KINDS:
        offset = 0
        while True:
            page = await client.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[kind])),
                sort=DeploymentSort.NAME_ASC,
                limit=_PAGE,
                offset=offset,
            )
            found += [each for each in page if kind_of(each.parameters) == kind]
            if len(page) < _PAGE:
                break
            offset += _PAGE
    return found


async def _prune(client: PrefectClient, project: str, keep: set[str]) -> list[Change]:
    changes = []
    # A pipeline goes before its jobs.
    for deployment in reversed(await deployments(client)):
        kind = str(kind_of(deployment.parameters))
        name, template = f"{kind}/{deployment.name}", deployment.parameters[kind].get("template", {})
        if template.get("project") == project and name not in keep:
            await client.delete_deployment(deployment.id)
            changes.append(Change(name, "removed", deployment.version, deployment_id=deployment.id))
    return changes
