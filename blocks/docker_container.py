"""One attempt as a container of a Docker engine: its end, its lines, its files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import aiodocker

from prefect_jobs.blocks import docker_files, docker_logs
from prefect_jobs.blocks.docker_client import insist, request
from prefect_jobs.blocks.docker_connection import Connection, Heard, Watch
from prefect_jobs.blocks.docker_end import ended, lost, moment, settled
from prefect_jobs.blocks.docker_usage import Usage
from prefect_jobs.blocks.engine import Container, LogLine
from prefect_jobs.blocks.files import Folder, Left
from prefect_jobs.outcome import Outcome
from prefect_jobs.spec import Identity


class DockerContainer(Container):
    """One container of a Docker engine."""

    def __init__(self, connection: Connection, container_id: str, identity: Identity) -> None:
        self.connection = connection
        self.id = container_id
        self.identity = identity
        self.handle = connection.client.containers.container(container_id)
        self._told_to_stop = False
        # Known from all waits together: whoever stops it waits for it twice.
        self._usage = Usage()
        self._heard = Heard()

    @property
    def told_to_stop(self) -> bool:
        """Whether this process stopped it."""
        return self._told_to_stop

    @property
    def place(self) -> str:
        """The container's name."""
        return f"the container {self.identity.container_name} of the Docker engine"

    def logs(self, after: datetime | None = None) -> AsyncIterator[LogLine]:
        """The engine's log of the container."""
        return docker_logs.lines(self.connection.client, self.id, after)

    async def wait(self) -> Outcome:
        """Wait for the engine's event, then ask it how the container ended."""
        async with self.connection.watch(self.id, self._heard) as watch:
            with self.connection.meter.measured(self.id, self._usage):
                return await self._end(watch)

    async def _end(self, watch: Watch) -> Outcome:
        while True:
            await watch.may_have_ended.wait()
            watch.may_have_ended.clear()
            try:
                found = await insist(self.handle.show, "look at a container")
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
                return lost(self.identity.attempt)
            state = found["State"]
            if state["Status"] in ("exited", "dead") or (state["Status"] == "created" and state["ExitCode"] != 0):
                if not self.told_to_stop:
                    await settled(found, self._heard)
                return ended(self.identity.attempt, found, watch, self._usage, told_to_stop=self.told_to_stop)

    async def age(self) -> float:
        """By the engine's own clock, which may be that of another machine."""
        try:
            state = (await insist(self.handle.show, "look at a container"))["State"]
        except aiodocker.DockerError as error:
            if error.status == 404:
                return 0.0
            raise
        info = await insist(self.connection.client.system.info, "tell its time")
        begun, now = moment(state["StartedAt"]), moment(info["SystemTime"])
        return 0.0 if begun is None or now is None else max(0.0, (now - begun).total_seconds())

    async def stop(self, grace_seconds: float) -> None:
        """Let the engine stop it; 304 and 404 say that it does not run any more."""
        before, self._told_to_stop = self._told_to_stop, True
        with contextlib.suppress(aiodocker.DockerError):
            ran = await insist(lambda: self._stop(max(1, round(grace_seconds))), "stop a container")
            self._told_to_stop = before or ran

    async def _stop(self, seconds: int) -> bool:
        """Whether it ran until now."""
        path = f"containers/{self.id}/stop"
        async with request(self.connection.client, "POST", path, params={"t": str(seconds)}) as response:
            return response.status != 304

    async def left(self, folder: Folder, spool: Path, only: str | None = None) -> Left:
        """Copied out of the container through the engine's API."""
        return await docker_files.fetch(self.connection.client, self.id, folder, only, spool)

    async def remove(self) -> None:
        """Remove the container with its anonymous volumes."""
        try:
            await insist(lambda: self.handle.delete(force=True, v=True), "remove a container")
        except aiodocker.DockerError as error:
            if error.status not in (404, 409):  # gone, or being removed
                raise
