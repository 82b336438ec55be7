"""Schedules are known by when they fire: what stays the same keeps its id, what left the file is removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.states import AwaitingRetry, Running
from reach import runs_of, until
from session import root
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.ext.asyncio import create_async_engine

from prefect_jobs import Job
from prefect_jobs.errors import TemplateError

Make = Callable[..., Job]
There = Callable[[], Awaitable[DeploymentResponse]]
MORNING = {"cron": "0 8 * * *", "timezone": "Europe/Berlin"}
PARAMETERS = {"size": {"type": "integer", "default": 1}}


async def _schedules(there: There, api: PrefectClient) -> dict[str | None, DeploymentSchedule]:
    return {schedule.slug: schedule for schedule in await api.read_deployment_schedules((await there()).id)}


async def _only(there: There, api: PrefectClient) -> DeploymentSchedule:
    (schedule,) = (await _schedules(there, api)).values()
    return schedule


async def test_every_kind_of_schedule_reaches_the_server(make: Make, there: There, api: PrefectClient) -> None:
    rule = "FREQ=DAILY;BYHOUR=8"
    await make(schedules=[MORNING, {"interval": "90m"}, {"rrule": rule}, {"cron": "@daily"}]).apply()
    cron, interval, rrule, daily = (
        each.schedule for each in sorted((await _schedules(there, api)).values(), key=lambda each: _place(each))
    )
    assert isinstance(cron, CronSchedule)
    assert (cron.cron, cron.timezone) == ("0 8 * * *", "Europe/Berlin")
    assert isinstance(interval, IntervalSchedule)
    assert interval.interval == timedelta(minutes=90)
    assert isinstance(rrule, RRuleSchedule)
    assert (rrule.rrule.splitlines()[-1], rrule.timezone) == (rule, "UTC")
    assert isinstance(daily, CronSchedule)
    assert daily.cron == "@daily"


def _place(schedule: DeploymentSchedule) -> int:
    slug = schedule.slug or ""
    return ["cron-0", "interval", "rrule", "cron-daily"].index(
        next(start for start in ("cron-0", "interval", "rrule", "cron-daily") if slug.startswith(start))
    )


async def test_schedules_are_added_and_removed_and_the_others_rest(
    make: Make, there: There, api: PrefectClient
) -> None:
    await make(schedules=[MORNING]).apply()
    morning = await _only(there, api)
    change = await make(schedules=[{"interval": "1h"}, MORNING]).apply()
    assert sorted(detail.split()[-1] for detail in change.details if detail.startswith("schedule")) == ["added"]
    both = await _schedules(there, api)
    assert len(both) == 2
    assert both[morning.slug].id == morning.id
    change = await make(schedules=[{"interval": "1h"}]).apply()
    assert f"schedule {morning.slug} removed" in change.details
    assert morning.slug not in await _schedules(there, api)
    await make().apply()
    assert await _schedules(there, api) == {}


async def test_changed_parameters_of_a_schedule_keep_its_id(make: Make, there: There, api: PrefectClient) -> None:
    await make(parameters=PARAMETERS, schedules=[{**MORNING, "parameters": {"size": 1}}]).apply()
    before = await _only(there, api)
    change = await make(parameters=PARAMETERS, schedules=[{**MORNING, "parameters": {"size": 2}}]).apply()
    after = await _only(there, api)
    assert f"schedule {before.slug} changed" in change.details
    assert (after.id, after.parameters) == (before.id, {"size": 2})
    await make(parameters=PARAMETERS, schedules=[MORNING]).apply()
    after = await _only(there, api)
    assert (after.id, after.parameters) == (before.id, {})


async def test_an_interval_keeps_counting_from_where_it_did(make: Make, there: There, api: PrefectClient) -> None:
    await make(parameters=PARAMETERS, schedules=[{"interval": "1h"}]).apply()
    before = (await _only(there, api)).schedule
    await make(parameters=PARAMETERS, schedules=[{"interval": "1h", "parameters": {"size": 2}}]).apply()
    after = (await _only(there, api)).schedule
    assert isinstance(before, IntervalSchedule)
    assert isinstance(after, IntervalSchedule)
    assert after.anchor_date == before.anchor_date


async def test_a_schedule_that_somebody_paused_stays_paused(make: Make, there: There, api: PrefectClient) -> None:
    await make(parameters=PARAMETERS, schedules=[MORNING]).apply()
    schedule = await _only(there, api)
    await api.update_deployment_schedule((await there()).id, schedule.id, active=False)
    changed = make(parameters=PARAMETERS, env={"A": "b"}, schedules=[{**MORNING, "parameters": {"size": 3}}])
    await changed.apply()
    after = await _only(there, api)
    assert (after.id, after.active, after.parameters) == (schedule.id, False, {"size": 3})
    assert (await changed.apply()).what == "unchanged"


async def test_another_time_zone_is_another_schedule(make: Make, there: There, api: PrefectClient) -> None:
    await make(schedules=[MORNING]).apply()
    before = await _only(there, api)
    await make(schedules=[{**MORNING, "timezone": "UTC"}]).apply()
    assert (await _only(there, api)).id != before.id


async def test_two_schedules_of_the_same_time_are_two(make: Make, there: There, api: PrefectClient) -> None:
    twice = make(
        parameters=PARAMETERS,
        schedules=[{**MORNING, "parameters": {"size": 1}}, {**MORNING, "parameters": {"size": 2}}],
    )
    await twice.apply()
    found = (await _schedules(there, api)).values()
    assert sorted(schedule.parameters["size"] for schedule in found) == [1, 2]
    assert (await twice.apply()).what == "unchanged"


async def test_a_schedule_of_somebody_else_on_the_job_is_removed(make: Make, there: There, api: PrefectClient) -> None:
    await make().apply()
    await api.create_deployment_schedules((await there()).id, [(CronSchedule(cron="* * * * *"), True)])
    change = await make().apply()
    assert [detail.split()[-1] for detail in change.details] == ["removed"]
    assert await _schedules(there, api) == {}


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "99 8 * * *"},
        {"cron": "a b c d e"},
        {"rrule": "every now and then"},
        {**MORNING, "parameters": {"env": {"JOB_NAME": "forged"}}},
        {**MORNING, "parameters": {"shape": {"cpus": 1}}},
    ],
    ids=str,
)
async def test_a_schedule_that_prefect_or_the_job_does_not_take_is_named(
    make: Make, schedule: dict[str, object]
) -> None:
    job = make(schedules=[schedule])
    with pytest.raises(TemplateError, match=rf"(?s){job.name}.*schedule"):
        await job.apply()


async def test_runs_that_the_scheduler_wrote_after_their_schedule_was_gone_are_deleted(
    name: str, make: Make, api: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(schedules=[{"cron": "* * * * *"}]).apply()

    async def has_runs() -> bool:
        return len(await runs_of(name)) > 10

    await until(has_runs, 30, "scheduled runs")
    begun = (await runs_of(name))[5]
    await api.set_flow_run_state(begun.id, Running(), force=True)
    await api.set_flow_run_state(begun.id, AwaitingRetry(), force=True)

    async def delete_it_alone(client: PrefectClient, deployment_id: UUID, schedule_id: UUID) -> None:
        # As a scheduler leaves it that had read it before: gone, but not with its runs.
        engine = create_async_engine((root() / "server-database").read_text())
        async with engine.begin() as connection:
            gone = text("delete from deployment_schedule where id = :schedule")
            await connection.execute(gone.bindparams(bindparam("schedule", schedule_id, Uuid)))
        await engine.dispose()

    monkeypatch.setattr(PrefectClient, "delete_deployment_schedule", delete_it_alone)
    await make().apply()
    assert [run.id for run in await runs_of(name)] == [begun.id]
