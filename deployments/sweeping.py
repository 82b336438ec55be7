"""Sweeping from the command line: now, or on a schedule by a deployment of its own."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound

from prefect_jobs.deployments.both_ways import both_ways
from prefect_jobs.deployments.work_pool import ensure_work_pool
from prefect_jobs.errors import OverrideError
from prefect_jobs.flows.sweep import sweep_all
from prefect_jobs.quantities import Duration

_FLOW, _NAME, _SLUG = "sweep", "jobs", "every"


def _duration(option: str, text: str) -> Duration:
    try:
        return Duration(text)
    except ValueError as error:
        raise OverrideError(f"{option} {text!r}: {error}") from None


@both_ways
async def sweep_now(infrastructures: list[str], older_than: str, dry_run: bool) -> tuple[list[str], bool]:
    """Sweep, and say in lines what was done; whether every infrastructure could be looked at."""
    age = _duration("--older-than", older_than)
    async with get_client() as client:
        # A person does not want to wait for an API that is away, as a deployed sweep does.
        await client.hello()
        done = await sweep_all(client, infrastructures, older_than=age, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    lines = [
        f"{each.infrastructure}: {verb} what run {each.run_id} left ({each.containers} containers): {each.why}"
        for each in done.removed
    ]
    lines += [
        f"{orphan.name}: {'would cancel' if dry_run else 'cancelled'} it, for its pipeline's run has ended"
        for orphan in done.cancelled
    ]
    return lines + [f"not looked at: {problem}" for problem in done.problems], not done.problems


@both_ways
async def deploy_sweep(every: str, infrastructures: list[str], older_than: str, work_pool: str) -> str:
    """Make or update the deployment that sweeps on a schedule; what became of it, for a person."""
    interval = IntervalSchedule(interval=timedelta(seconds=_duration("--every", every).seconds))
    parameters = {"infrastructures": infrastructures or None, "older_than": str(_duration("--older-than", older_than))}
    full_name = f"{_FLOW}/{_NAME}"
    async with get_client() as client:
        await ensure_work_pool(client, work_pool)
        try:
            there = await client.read_deployment_by_name(full_name)
        except ObjectNotFound:
            await client.create_deployment(
                flow_id=await client.create_flow_from_name(_FLOW),
                name=_NAME,
                entrypoint="prefect_jobs.flows.sweep.sweep",
                description="Removes what job runs left that ended or vanished",
                parameters=parameters,
                work_pool_name=work_pool,
                schedules=[DeploymentScheduleCreate(schedule=interval, active=True, slug=_SLUG)],
            )
            return f"{full_name}: created, every {every}"
        await client.update_deployment(there.id, DeploymentUpdate(parameters=parameters, work_pool_name=work_pool))
        for schedule in there.schedules:
            if schedule.slug == _SLUG:
                await client.update_deployment_schedule(there.id, schedule.id, schedule=interval)
        return f"{full_name}: updated, every {every}"
