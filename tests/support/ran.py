"""A job run that was executed in this process, and all that a test asks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import Log, State

from prefect_jobs import Job, JobRun

Execute = Callable[[JobRun], Awaitable["State[Any]"]]


@dataclass(frozen=True)
class Ran:
    """A run that has ended, as its API shows it."""

    run: JobRun
    records: list[Log]
    """Its container's lines: records without what Prefect and the flow say."""
    told: list[str]
    """What Prefect and the flow said."""

    @property
    def state(self) -> State[Any]:
        """The state that the server has."""
        return cast("State[Any]", self.run.flow_run.state)

    @property
    def message(self) -> str:
        """The state's message."""
        return self.state.message or ""

    @property
    def lines(self) -> list[str]:
        """The container's lines."""
        return [record.message for record in self.records]

    @property
    def codes(self) -> list[int | None]:
        """The exit code of each attempt."""
        return [outcome.exit_code for outcome in self.run.attempts]


async def ran(execute: Execute, run: JobRun) -> Ran:
    """Execute a run and look at it."""
    await execute(run)
    logs = await run.logs()
    records = [log for log in logs if log.name.startswith("container.")]
    return Ran(run, records, [log.message for log in logs if not log.name.startswith("container.")])


@pytest.fixture
def start(execute: Execute) -> Callable[..., Awaitable[Ran]]:
    """Starts a run of a job with the request given and executes it; for a conftest to import."""

    async def go(job: Job, **request: Any) -> Ran:
        run: JobRun = await job.run(**request)
        return await ran(execute, run)

    return go


async def deployed(name: str, **keys: Any) -> Job:
    """A job of these keys, deployed without a work pool, so that no worker takes its runs."""
    job = Job.model_validate({"name": name, **keys})
    await job.apply(work_pool=None)
    return job
