"""Where faults are played: one run of a new job on one infrastructure, and what was seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from hosts import docker
from prefect.client.schemas.objects import State
from prefect_docker.host import DockerHost
from ran import Execute, deployed
from reach import first_line

from prefect_jobs import JobRun, Outcome
from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.process import Process

During = Callable[[JobRun], Awaitable[datetime]]


@dataclass(frozen=True)
class Seen:
    """A run that has ended, and when the fault happened."""

    run: JobRun
    moment: datetime | None = None

    @property
    def state(self) -> State[Any]:
        return cast("State[Any]", self.run.flow_run.state)

    @property
    def message(self) -> str:
        """The first line of the state's message."""
        return (self.state.message or "").partition("\n")[0]

    @property
    def tail(self) -> str:
        """The container's last lines in the state's message."""
        return (self.state.message or "").partition("\n")[2]

    @property
    def outcome(self) -> Outcome:
        """How the last attempt ended."""
        return self.run.attempts[-1]

    @property
    def seconds(self) -> float:
        """Seconds from the fault until Prefect showed it."""
        moment = self.moment or self.outcome.ended
        assert moment is not None
        return (self.state.timestamp - moment).total_seconds()


class Stage:
    """An infrastructure on which a case plays."""

    def __init__(self, infrastructure: str, image: str, execute: Execute, folder: Path) -> None:
        self.infrastructure = infrastructure
        self.image = image
        self.folder = folder
        self._execute = execute

    async def run(self, script: str, during: During | None = None, **keys: Any) -> Seen:
        """Run a script as a job while something happens, which tells when it did."""
        return await self.command("sh", "-c", script, during=during, **keys)

    async def command(self, *command: str, during: During | None = None, **keys: Any) -> Seen:
        """Run a command as a job."""
        # The image is not pinned by its deployment, so that the run finds out what there is.
        fields = {"image": self.image, "command": list(command), "grace_period": "1s", **keys}
        where = fields.pop("infrastructure", self.infrastructure)
        run = await (await deployed(f"job-{uuid4().hex[:8]}", **fields)).run(infrastructure=where)

        async def nothing(_: JobRun) -> None:
            return None

        # What happens waits for the run, and the run for what happens.
        async with asyncio.timeout(90):
            _, moment = await asyncio.gather(self._execute(run), (during or nothing)(run))
        return Seen(await run.refresh(), moment)

    async def docker_at(self, url: str) -> str:
        """A Docker block of an engine; how a run names it."""
        name = f"own-{uuid4().hex[:8]}"
        await Docker(host=DockerHost(base_url=url), network="none").save(name)
        return f"docker/{name}"

    async def process_in(self, home: Path) -> str:
        """A process block below a folder; how a run names it."""
        name = f"own-{uuid4().hex[:8]}"
        await Process(home=home).save(name)
        return f"process/{name}"


def once_up(act: Callable[[JobRun], Awaitable[None] | None]) -> During:
    """Do something when the container has written its first line."""

    async def during(run: JobRun) -> datetime:
        await first_line(run)
        moment = datetime.now(UTC)
        if (done := act(run)) is not None:
            await done
        return moment

    return during


def container_of(run: JobRun) -> str:
    """The name of the run's first container on the Docker engine."""
    return docker("ps", "--all", "--filter", f"label=prefect-jobs/run-id={run.id}", "--format", "{{ .Names }}").strip()
