"""Secrets as files in a container that has not started yet, in memory and never on a disk of the engine.

The engine puts files into a container that was made and not started; a tmpfs, though, exists only while something has
it mounted. So the secrets' folder is a volume of the ``local`` driver with the type tmpfs, and a second container that
is never started, the holder, has it mounted for as long as a request that puts files into it is open. Meanwhile the
files go in and the container starts; from then on it has the volume mounted itself, and the last of it is gone when it
has ended (Engine API, "Extract an archive of files or folders to a directory in a container").
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

import aiodocker

from prefect_jobs.blocks.docker_body import secrets_mount
from prefect_jobs.blocks.docker_client import insist, request
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.spec import SECRETS_FOLDER, Identity

_HOLDER = "prefect-jobs/holds-secrets-of"
_TAR = {"Content-Type": "application/x-tar"}
_SECONDS = 20.0


@asynccontextmanager
async def in_place(
    client: aiodocker.Docker,
    container: aiodocker.containers.DockerContainer,
    image: str,
    identity: Identity,
    contents: Mapping[str, str],
) -> AsyncIterator[None]:
    """Have the files in the container's secrets folder; it must have started before this is left.

    Raises:
        InfrastructureError: the container's user is unknown, or the engine does not keep the files.
    """
    if not contents:
        yield
        return
    archive = _archive(contents, await _user_id(container))
    name = f"{identity.container_name}-secrets"
    with contextlib.suppress(aiodocker.DockerError):  # Of a supervisor that died in the middle.
        await client.containers.container(name).delete(force=True)
    holder = await client.containers.create(
        {
            "Image": image,
            "Entrypoint": ["never-started"],
            "Labels": {_HOLDER: str(identity.run_id)},
            "HostConfig": {"Mounts": [secrets_mount(identity)], "NetworkMode": "none"},
        },
        name=name,
    )
    started = asyncio.Event()
    holding = asyncio.create_task(_hold(client, holder.id, started), name="prefect-jobs: secrets held in memory")
    try:
        await _put(client, container, archive, next(iter(contents)), holding)
        yield
    finally:
        started.set()
        # What is left where the engine hangs goes with the run (`remove_holders`).
        with contextlib.suppress(TimeoutError, aiodocker.DockerError):
            async with asyncio.timeout(_SECONDS):
                await asyncio.gather(holding, return_exceptions=True)
                await insist(lambda: holder.delete(force=True), "remove a container")


async def remove_holders(client: aiodocker.Docker, run_id: UUID) -> None:
    """Remove what supervisors that died left of a run."""
    filters = json.dumps({"label": [f"{_HOLDER}={run_id}"]})
    for holder in await insist(lambda: client.containers.list(all=1, filters=filters), "list containers"):
        with contextlib.suppress(aiodocker.DockerError):
            await insist(lambda holder=holder: holder.delete(force=True), "remove a container")  # type: ignore[misc]


async def _hold(client: aiodocker.Docker, holder: str, started: asyncio.Event) -> None:
    """Keep the volume mounted by a request whose body ends when the container has started."""

    async def body() -> AsyncIterator[bytes]:
        folder = tarfile.TarInfo(SECRETS_FOLDER.lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        yield folder.tobuf()
        await started.wait()
        yield bytes(2 * tarfile.BLOCKSIZE)

    async with request(
        client, "PUT", f"containers/{holder}/archive", params={"path": "/"}, data=body(), headers=_TAR
    ) as response:
        await response.read()


async def _put(
    client: aiodocker.Docker,
    container: aiodocker.containers.DockerContainer,
    archive: bytes,
    file: str,
    holding: asyncio.Task[None],
) -> None:
    """Put the files in until they stay: at first the holder may not have the volume mounted yet."""
    path = f"containers/{container.id}/archive"
    try:
        async with asyncio.timeout(_SECONDS):
            while not holding.done():
                async with request(client, "PUT", path, params={"path": SECRETS_FOLDER}, data=archive, headers=_TAR):
                    pass
                if await _is_there(client, path, f"{SECRETS_FOLDER}/{file}"):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    # What the engine said, if it said anything; the request carries no secret.
    said = holding.exception() if holding.done() and not holding.cancelled() else None
    raise InfrastructureError(
        f"the Docker engine does not keep files in a volume of type tmpfs while a request is open ({said!r}), so "
        "that the job's secrets cannot come as files: a proxy before it may collect requests. Connect to the engine "
        "without one, or let the job take its secrets as environment variables"
    )


async def _is_there(client: aiodocker.Docker, path: str, file: str) -> bool:
    try:
        async with request(client, "HEAD", path, params={"path": file}):
            return True
    except aiodocker.DockerError as error:
        if error.status == 404:
            return False
        raise


async def _user_id(container: aiodocker.containers.DockerContainer) -> int:
    """The number of the user that the container runs as; a name is looked up where the image knows it."""
    user = str((await container.show())["Config"].get("User") or "0").partition(":")[0]
    if user.isdecimal():
        return int(user)
    for line in (await _text(container, "/etc/passwd")).splitlines():
        name, *fields = line.split(":")
        if name == user and len(fields) > 1 and fields[1].isdecimal():
            return int(fields[1])
    raise InfrastructureError(
        f"the container's user {user!r} is not in the image's /etc/passwd, so that nobody could own the files of the "
        "job's secrets; give the user as a number in security.user"
    )


async def _text(container: aiodocker.containers.DockerContainer, file: str) -> str:
    """A file of the container; empty where it has none."""
    try:
        with await container.get_archive(file) as tar:
            content = tar.extractfile(tar.getmembers()[0])
            return "" if content is None else content.read().decode(errors="replace")
    except aiodocker.DockerError as error:
        if error.status == 404:
            return ""
        raise


def _archive(contents: Mapping[str, str], user_id: int) -> bytes:
    """The files, which only their owner may read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in contents.items():
            content = value.encode()
            entry = tarfile.TarInfo(name)
            entry.uid, entry.mode, entry.size = user_id, 0o400, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
