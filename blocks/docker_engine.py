"""Runs attempts as containers of a Docker engine; the engine's unique container names make each start once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import aiodocker

from prefect_jobs.blocks import docker_files, docker_secrets
from prefect_jobs.blocks.clock import clock
from prefect_jobs.blocks.docker_body import KEEP, create_body, folders
from prefect_jobs.blocks.docker_client import AWAY, carried_out, delays, insist, is_away, unavailable
from prefect_jobs.blocks.docker_connection import MINE, Connection, shared_connection
from prefect_jobs.blocks.docker_container import DockerContainer
from prefect_jobs.blocks.docker_end import moment
from prefect_jobs.blocks.docker_images import Images
from prefect_jobs.blocks.engine import Container, Engine, Found, Tell, kept_until, may_start
from prefect_jobs.blocks.files import NOTHING_STAGED, Staged
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.spec import ContainerSpec, Identity, PullPolicy

if TYPE_CHECKING:
    from prefect_jobs.blocks.docker import Docker

_VOLUME_MARK = "prefect-jobs/volume"
# How long the maker of a container has to start it, before another takes over.
_CREATOR_SECONDS = 5.0
# As a shell says that a command cannot be run, or is not there.
_NO_COMMAND = (126, 127)


class _Created(NamedTuple):
    """A container that is there, perhaps not started."""

    container: aiodocker.containers.DockerContainer
    asked: float | None
    """When this launch asked for it, by `clock`; None where somebody else had made it."""


@asynccontextmanager
async def connected(block: Docker) -> AsyncIterator[DockerEngine]:
    """The engine of a block, on the connection that all blocks of the same engine share in an event loop."""
    async with shared_connection(block.host.base_url if block.host is not None else None) as connection:
        yield DockerEngine(block, connection)


class DockerEngine(Engine):
    """Containers of one Docker engine."""

    def __init__(self, block: Docker, connection: Connection) -> None:
        self.block = block
        self.connection = connection
        self.client = connection.client
        self.images = Images(self.client, block.registry)

    async def pin(self, image: str, pull_policy: PullPolicy) -> str | None:
        """The image's digest, from the engine or through it from the registry."""
        return await self.images.pin(image, pull_policy)

    async def launch(
        self,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        tell: Tell,
        staged: Staged = NOTHING_STAGED,
    ) -> Container:
        """Create and start the container of an attempt, or attach to it."""
        assert spec.image is not None
        async for _ in delays():
            try:
                created = await self._create(spec, identity, secrets, tell)
                await self._start(created, spec, identity, secrets, staged)
                break
            except AWAY as error:
                tell(f"The Docker engine does not answer, trying again: {error!r}")
            except aiodocker.DockerError as error:
                if error.status == 404 and "no such container" in error.message.lower():
                    continue  # Somebody removed it before it was started: it is made anew.
                if error.status < 500:
                    raise InfrastructureError(
                        f"the Docker engine refused the container of job {identity.job!r}: {error.message}"
                    ) from error
                what = "does not answer" if is_away(error) else "failed to start the container"
                tell(f"The Docker engine {what}, trying again: {error.message}")
        return DockerContainer(self.connection, created.container.id, identity)

    async def _create(
        self, spec: ContainerSpec, identity: Identity, secrets: Mapping[str, str], tell: Tell
    ) -> _Created:
        """The container by its name: made now, or there already."""
        assert spec.image is not None
        name, body = identity.container_name, create_body(self.block, spec, identity, secrets)
        volumes = [mount.source for mount in spec.mounts if not mount.is_host_folder]
        first = bool(volumes) or spec.pull_policy == "Always"
        if first:
            if there := await self._there(name):
                return there
            await self.images.provide(spec.image, spec.pull_policy, tell)
            for volume in volumes:
                await self._claim_volume(volume)
        try:
            return await self._made(name, body)
        except aiodocker.DockerError as error:
            if error.status not in (400, 404):
                raise
            # It may be there although the engine refuses it now: its image or a folder may have gone since.
            if there := await self._there(name):
                return there
            if first:
                raise
        # Most images are there: one that is not is looked after when the engine misses it.
        await self.images.provide(spec.image, spec.pull_policy, tell)
        return await self._made(name, body)

    async def _made(self, name: str, body: dict[str, Any]) -> _Created:
        await may_start()
        asked = clock()
        try:
            return _Created(await carried_out(self.client.containers.create(body, name=name)), asked)
        except aiodocker.DockerError as error:
            if error.status != 409:
                raise
            if there := await self._there(name):
                return there
            raise aiodocker.DockerError(503, error.message) from error  # It was removed meanwhile: once more.

    async def _claim_volume(self, name: str) -> None:
        """Make a named volume with this project's mark, or see that it is one that a job may mount."""
        volume = await self.client.volumes.create({"Name": name, "Labels": {_VOLUME_MARK: name}})  # type: ignore[no-untyped-call]
        labels = (await volume.show()).get("Labels") or {}
        if _VOLUME_MARK not in labels and name not in self.block.allow_volumes:
            raise InfrastructureError(
                f"the volume {name!r} was not made by prefect-jobs, and the allow_volumes of {self.block.label} does "
                "not list it: choose another name, or let the block's owner allow it"
            )

    async def _start(
        self,
        created: _Created,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        staged: Staged,
    ) -> None:
        """Start the container if it never was: the engine starts what has ended as gladly as what is new."""
        container = created.container
        if not await _is_to_start(container, created.asked):
            return
        await container.put_archive("/", folders())  # type: ignore[no-untyped-call]
        await docker_files.put(self.client, container.id, staged)
        if not await _is_to_start(container, created.asked):
            return
        files = spec.secret_contents(secrets)
        assert spec.image is not None
        try:
            async with docker_secrets.in_place(self.client, container, spec.image, identity, files):
                await may_start()
                await container.start()
        except aiodocker.DockerError as error:
            code = (await container.show())["State"]["ExitCode"]
            if code in _NO_COMMAND:  # `wait` reports it.
                return
            if code != 0:  # The engine tried: a device, a user, a network that is not there.
                raise aiodocker.DockerError(400, error.message) from error
            raise

    async def _there(self, name: str) -> _Created | None:
        """The container that somebody else has made, once its maker has had time to start it."""
        try:
            container = await self.client.containers.get(name)
        except aiodocker.DockerError as error:
            if error.status == 404:
                return None
            raise
        await _left_to_its_creator(container)
        return _Created(container, None)

    def container(self, identity: Identity) -> Container:
        """The attempt's container by its name."""
        return DockerContainer(self.connection, identity.container_name, identity)

    async def containers(self) -> list[Found]:
        """Every container that carries this project's labels."""
        try:
            listed = await self.client.containers.list(all=1, filters=json.dumps({"label": [MINE]}))
            return [await self._found(container) for container in listed]
        except (*AWAY, aiodocker.DockerError) as error:
            raise unavailable(error) from error

    async def _found(self, container: aiodocker.containers.DockerContainer) -> Found:
        labels, until = container["Labels"], None
        if (keep := labels.get(KEEP)) and container["State"] == "exited":
            # A container that somebody removes meanwhile has no end to be told, and nothing to keep.
            try:
                state = (await container.show())["State"]
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
            else:
                until = kept_until(float(keep), state["ExitCode"], moment(state["FinishedAt"]))
        return Found(
            run_id=UUID(labels[MINE]),
            attempt=int(labels["prefect-jobs/attempt"]),
            job=labels["prefect-jobs/job"],
            running=container["State"] == "running",
            installation=labels.get("prefect-jobs/installation", ""),
            kept_until=until,
        )

    async def runs(self) -> dict[UUID, str]:
        """Every run of which a container or the checkpoint volume is there."""
        mine = {"label": [MINE]}
        try:
            containers = await self.client.containers.list(all=1, filters=json.dumps(mine))
            volumes = await self.client.volumes.list(filters=mine)  # type: ignore[no-untyped-call]
        except (*AWAY, aiodocker.DockerError) as error:
            raise unavailable(error) from error
        labelled = [container["Labels"] for container in containers]
        labelled += [volume["Labels"] for volume in volumes["Volumes"] or []]
        return {UUID(labels[MINE]): labels.get("prefect-jobs/installation", "") for labels in labelled}

    async def release(self, run_id: UUID) -> None:
        """Remove the run's volumes: its checkpoint, and the empty ones of its secrets; a kept container's stay."""
        mine = {"label": [f"{MINE}={run_id}"]}
        with contextlib.suppress(aiodocker.DockerError):
            await docker_secrets.remove_holders(self.client, run_id)
            found = await insist(lambda: self.client.volumes.list(filters=mine), "list volumes")  # type: ignore[no-untyped-call]
            for volume in found["Volumes"] or []:
                with contextlib.suppress(aiodocker.DockerError):
                    await insist(lambda name=volume["Name"]: self._delete_volume(name), "remove a volume")  # type: ignore[misc]

    async def _delete_volume(self, name: str) -> None:
        volume = await self.client.volumes.get(name)  # type: ignore[no-untyped-call]
        await volume.delete()


def _is_new(found: dict[str, Any]) -> bool:
    """Whether a container was made and never started; with one of a shell's codes its command cannot be run."""
    return bool(found["State"]["Status"] == "created" and found["State"]["ExitCode"] not in _NO_COMMAND)


async def _is_to_start(container: aiodocker.containers.DockerContainer, asked: float | None) -> bool:
    """Whether nobody has started a container; its maker need not ask as long as everybody else leaves it alone."""
    if asked is not None and clock() - asked < _CREATOR_SECONDS:
        return True
    return _is_new(await container.show())


async def _left_to_its_creator(container: aiodocker.containers.DockerContainer) -> None:
    """Wait until whoever made a container has started it, or long enough to know that its maker is no more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CREATOR_SECONDS):
            while _is_new(await container.show()):  # noqa: ASYNC110 - the engine's event may be over by now
                await asyncio.sleep(0.05)
