"""The figures of a worker, as Prometheus would read them, are what happened."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from reach import ended, first_line, until
from workers import Worker, worker

from prefect_jobs import Job, JobRun

ENDS = {
    "Completed": {"command": ["true"]},
    "Failed": {"command": ["sh", "-c", "exit 3"]},
    "Killed": {"command": ["sh", "-c", "kill -9 $$"]},
    "TimedOut": {"command": ["sleep", "60"], "timeout": "1s"},
}


@pytest.fixture
def name(prefect_api: str) -> str:
    """The name of a work pool that no other test has."""
    return f"own-{uuid4().hex[:8]}"


async def started_run(pool: str, **keys: object) -> JobRun:
    fields = {"name": f"job-{uuid4().hex[:8]}", "grace_period": "1s", "retries": {"infrastructure": 0}, **keys}
    job = Job.model_validate(fields)
    await job.apply(work_pool=pool)
    return await job.run()


async def reads(there: Worker, seconds: float = 20, **wanted: float) -> dict[str, float]:
    """The figures as soon as they are as wanted."""

    async def are_so() -> bool:
        figures = await asyncio.to_thread(there.figures)
        return all(figures.get(name) == value for name, value in wanted.items())

    await until(are_so, seconds, f"{wanted}; there are {there.figures()}")
    return there.figures()


def ends(figures: dict[str, float]) -> dict[str, float]:
    """How many runs ended, by the name of their state."""
    return {
        name.removeprefix("runs_ended_total{").removesuffix("}"): value
        for name, value in figures.items()
        if name.startswith("runs_ended_total{")
    }


async def test_runs_are_counted_by_how_they_end_and_timed_until_their_container_starts(name: str) -> None:
    async with worker("prefect-jobs", "worker", "--pool", name) as there:
        runs = [await started_run(name, **keys) for keys in ENDS.values()]
        runs.append(await started_run(name, command=["true"]))
        retried = await started_run(name, command=["sh", "-c", "exit 3"], retries=1)
        cancelled = await started_run(name, command=["sh", "-c", "echo up; sleep 300"])
        assert await first_line(cancelled) == "up"
        await asyncio.gather(*(ended(run) for run in (*runs, retried)))
        figures = await reads(there, runs_active=1, supervisors=1)
        await asyncio.to_thread(cancelled.cancel)
        await ended(cancelled)

        figures = await reads(there, runs_active=0)
        assert ends(figures) == {"Completed": 2, "Failed": 2, "Killed": 1, "TimedOut": 1, "Cancelled": 1}
        assert figures["runs_started_total{new}"] == len(runs) + 2
        # The first container of each, however many follow it.
        assert figures["seconds_to_start_count"] == len(runs) + 2
        assert 0 < figures["seconds_to_start_sum"] < 30 * (len(runs) + 2)
        assert figures["api_requests_total"] > 10 * len(runs)
        assert figures["api_away"] == 0
        assert 0 <= figures["lease_age_seconds"] < 10
        assert 0 <= figures["loop_lag_seconds"] < 10


async def test_a_run_that_was_taken_over_counts_as_adopted_and_says_nothing_of_seconds_to_start(name: str) -> None:
    words = ("prefect-jobs", "worker", "--pool", name)
    async with worker(*words) as first, worker(*words) as second:
        await reads(first, supervisors=2)
        await first.kill()
        run = await started_run(name, command=["sh", "-c", "echo up; sleep 20"])
        await first_line(run)
        assert (await reads(second, 30, supervisors=1))["runs_started_total{new}"] == 1
        await second.kill()
        async with worker(*words) as third:
            figures = await reads(third, 30, **{"runs_started_total{adopted}": 1, "runs_active": 1})
            assert figures["seconds_to_start_count"] == 0
            await ended(run)
            assert ends(await reads(third, runs_active=0)) == {"Completed": 1}
