"""Files in and out of a container through its engine's API, wherever the engine is: a stream, never held in memory.

Engine API, "Extract an archive of files or folders to a directory in a container" and "Get an archive of a filesystem
resource in a container". Both work before the first start and after the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiodocker
import aiohttp

from prefect_jobs.blocks.docker_client import insist, logger, request
from prefect_jobs.blocks.files import Folder, Left, Staged, problem_with_name, resolve, shown
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.spec import Places

_PLACES = Places()
_TAR = {"Content-Type": "application/x-tar"}
_CHUNK = 1 << 18
# However many runs begin and end at once; who waits has sent or asked for nothing yet.
_THREADS = ThreadPoolExecutor(4, "prefect-jobs files")


def place_of(folder: Folder) -> str:
    """Where a container sees one of its folders."""
    return str(getattr(_PLACES, folder))


async def put(client: aiodocker.Docker, container_id: str, staged: Staged) -> None:
    """Put what is staged into the folders of a container that has not started, for whatever user it runs as."""
    for folder, source in staged.items():
        async with (
            _packed(source) as body,
            request(
                client,
                "PUT",
                f"containers/{container_id}/archive",
                params={"path": place_of(folder)},
                data=body,
                headers=_TAR,
            ),
        ):
            pass


async def fetch(client: aiodocker.Docker, container_id: str, folder: Folder, only: str | None, spool: Path) -> Left:
    """Copy what a container left in a folder to ``spool``; an engine that goes away meanwhile is waited for.

    Raises:
        InfrastructureError: the spool cannot be written, or all of the folder is asked for and the container is gone.
    """
    path = place_of(folder) if only is None else f"{place_of(folder)}/{only}"

    async def copy() -> Left:
        await asyncio.to_thread(_empty, spool)
        url = f"containers/{container_id}/archive"
        async with request(client, "GET", url, params={"path": path}) as response:
            return await _unpacked(response.content, spool, folder, only)

    try:
        return await insist(copy, "copy files out of a container")
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
    # Engines say in words of their own whether it is the path or the container that is not there.
    if not await _is_there(client, container_id):
        what = f"{path} could not be copied out of the container {container_id[:12]}: the container is gone"
        if only is None:
            raise InfrastructureError(
                f"{what}, so somebody removed it after it had ended; start the run again, and let nothing but "
                "prefect-jobs remove containers that have the label prefect-jobs/run-id"
            )
        # One file is an extra to an outcome that is known: losing it does not undo the outcome.
        logger.warning("%s", what)
    return Left()


async def _is_there(client: aiodocker.Docker, container_id: str) -> bool:
    try:
        await insist(client.containers.container(container_id).show, "look at a container")
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return False
    return True


def _empty(spool: Path) -> None:
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)


# -- in


@contextlib.asynccontextmanager
async def _packed(source: Path) -> AsyncIterator[AsyncIterator[bytes]]:
    """What is below a folder of this machine, as the body of a request."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    packing = loop.run_in_executor(_THREADS, _pack, source, writing)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )

    async def body() -> AsyncIterator[bytes]:
        while chunk := await reader.read(_CHUNK):
            yield chunk
        # A folder that could not be read must not look like one that was read to its end.
        await packing

    try:
        yield body()
    finally:
        transport.close()
        await asyncio.gather(packing, return_exceptions=True)


def _pack(source: Path, writing: int) -> None:
    def for_anybody(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (member.isfile() or member.isdir()):
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o777 if member.isdir() else 0o666
        return member

    try:
        with (
            os.fdopen(writing, "wb", _CHUNK) as pipe,
            tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(source, arcname=".", filter=for_anybody)
    except BrokenPipeError:  # The request says why.
        pass
    except OSError as error:
        raise InfrastructureError(
            f"the files for a container could not be read from {str(source)!r}: {error.strerror}; start the run again"
        ) from error


# -- out


async def _unpacked(stream: aiohttp.StreamReader, spool: Path, folder: Folder, only: str | None) -> Left:
    """Read an archive to its end."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    unpacking = loop.run_in_executor(_THREADS, _unpack, reading, spool, folder, only)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(writing, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        # Where the other end is closed, the thread says why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            async for chunk in stream.iter_chunked(_CHUNK):
                if unpacking.done():
                    break
                writer.write(chunk)
                await writer.drain()
    finally:
        writer.close()
        failed = (await asyncio.gather(unpacking, return_exceptions=True))[0]
    if isinstance(failed, tarfile.TarError):
        raise aiohttp.ClientPayloadError(f"the archive of a container's files is cut off: {failed}")
    return await unpacking


def _unpack(reading: int, spool: Path, folder: Folder, only: str | None) -> Left:
    """Write each file of an archive under a number: names are the container's, and mean nothing here."""
    left, links = Left(), dict[str, str]()
    with os.fdopen(reading, "rb", _CHUNK) as pipe:
        with tarfile.open(fileobj=pipe, mode="r|", errors="surrogateescape") as archive:
            for number, member in enumerate(archive):
                # The first part is the folder itself.
                name = only or member.name.partition("/")[2]
                if not name or member.isdir():
                    continue
                if problem := problem_with_name(name):
                    left.skipped[shown(name)] = problem
                elif member.issym():
                    links[name] = member.linkname
                elif member.islnk():
                    inner = member.linkname.partition("/")[2]
                    if inner in left.files:
                        left.files[name] = left.files[inner]
                    else:
                        left.skipped[name] = left.skipped.get(inner, "it is a link to no file")
                elif not member.isreg():
                    left.skipped[name] = "it is neither a file nor a folder"
                else:
                    left.files[name] = _written(archive, member, spool / str(number))
                archive.members.clear()  # type: ignore[attr-defined]  # It keeps all that it has seen.
        while pipe.read(_CHUNK):
            pass
    resolve(left, links, place_of(folder))
    return left


def _written(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Path:
    content = archive.extractfile(member)
    assert content is not None
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
    except OSError as error:
        raise InfrastructureError(
            f"the files of a container could not be kept on this machine, in {str(path.parent)!r}: {error.strerror}; "
            "make room there, or set PREFECT_JOBS_SPOOL to a folder that has it"
        ) from error
    return path
