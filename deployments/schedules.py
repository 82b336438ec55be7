"""A template's schedules beside those that its deployment has: what to add, to change and to take away."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterCreatedBy,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from prefect_jobs.errors import OverrideError, TemplateError
from prefect_jobs.job import Job, Schedule
from prefect_jobs.parameters import resolve
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.request import Request
from prefect_jobs.wording import complaint

if TYPE_CHECKING:
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

# The API lists no more at once.
_PAGE = 200


def slugs(template: Job | Pipeline) -> dict[str, Schedule]:
    """A template's schedules by slug: what a schedule is called follows from when it fires, not from its place."""
    found: dict[str, Schedule] = {}
    for schedule in template.schedules:
        kind = "cron" if schedule.cron else "interval" if schedule.interval else "rrule"
        text = f"{getattr(schedule, kind)} {schedule.timezone}"
        readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
        slug = f"{kind}-{readable}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        number = 2
        while slug in found:
            slug, number = f"{slug.removesuffix(f'-{number - 1}')}-{number}", number + 1
        found[slug] = schedule
    return found


def check(template: Job | Pipeline) -> None:
    """Refuse schedules that Prefect does not take, or whose parameters the template does not take.

    Raises:
        TemplateError: the message names job or pipeline, and schedule.
    """
    kind = "job" if isinstance(template, Job) else "pipeline"
    for slug, schedule in slugs(template).items():
        try:
            prefect_schedule(schedule)
            if isinstance(template, Job):
                Request.parse(template, {**template.defaults(), **schedule.parameters})
            else:
                resolve(template.parameters, schedule.parameters, f"pipeline {template.name!r}")
        except (ValidationError, OverrideError) as error:
            words = complaint(error.errors()[0], Schedule) if isinstance(error, ValidationError) else str(error)
            raise TemplateError(f"{kind} {template.name!r}, schedule {slug}: {words}") from error


def prefect_schedule(schedule: Schedule) -> CronSchedule | IntervalSchedule | RRuleSchedule:
    """The schedule in Prefect's own terms."""
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    if schedule.interval is not None:
        return IntervalSchedule(interval=timedelta(seconds=schedule.interval.seconds), timezone=schedule.timezone)
    assert schedule.rrule is not None
    return RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)


def creations(template: Job | Pipeline) -> list[DeploymentScheduleCreate]:
    """All schedules of a template, for a deployment that has none."""
    return [_creation(slug, schedule) for slug, schedule in slugs(template).items()]


def _creation(slug: str, schedule: Schedule) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        schedule=prefect_schedule(schedule), active=True, slug=slug, parameters=schedule.parameters
    )


async def reconcile(
    client: PrefectClient, deployment: DeploymentResponse, template: Job | Pipeline, removed: list[UUID]
) -> list[str]:
    """Make a deployment's schedules those of the template, and say what was changed; ``removed`` gets what is gone.

    A schedule is known by its slug: it keeps its id, so that no tick runs twice, and its pause, for a person set that.
    Of those that are gone, `drop_runs` has to see a while later that no run was left.
    """
    wanted = slugs(template)
    there = {schedule.slug: schedule for schedule in await client.read_deployment_schedules(deployment.id)}
    changes = []
    for slug, schedule in there.items():
        if slug not in wanted:
            await client.delete_deployment_schedule(deployment.id, schedule.id)
            changes.append(f"schedule {slug or schedule.id} removed")
            removed.append(schedule.id)
    for slug, desired in wanted.items():
        if slug not in there:
            await client.create_deployment_schedules(deployment.id, [_creation(slug, desired)])
            changes.append(f"schedule {slug} added")
        elif there[slug].parameters != desired.parameters:
            await client.update_deployment_schedule(
                deployment.id,
                there[slug].id,
                schedule=_keep_anchor(prefect_schedule(desired), there[slug]),
                parameters=desired.parameters,
            )
            changes.append(f"schedule {slug} changed")
    return changes


async def drop_runs(client: PrefectClient, removed: list[UUID]) -> None:
    """Delete the runs to come of schedules that were removed.

    Prefect deletes them with the schedule. Its scheduler may have read the schedule before, and write more of them.
    """
    chosen = FlowRunFilter(
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Scheduled", "Late"])),
        created_by=FlowRunFilterCreatedBy(id_=removed),
    )
    ask = partial(client.read_flow_runs, flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=_PAGE)
    # Of a run that has begun once, a person wants to see what became of it.
    while runs := [run for run in await ask() if run.run_count == 0]:
        for run in runs:
            with suppress(ObjectNotFound):
                await client.delete_flow_run(run.id)


def _keep_anchor(schedule: Any, there: DeploymentSchedule) -> Any:
    """An interval counts from its anchor; a new one would move every tick."""
    if isinstance(schedule, IntervalSchedule) and isinstance(there.schedule, IntervalSchedule):
        return schedule.model_copy(update={"anchor_date": there.schedule.anchor_date})
    return schedule
