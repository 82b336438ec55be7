"""A container's lines as a Docker engine streams them: in order, each once, across dropped connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime

import aiodocker
import aiohttp

from prefect_jobs.blocks.docker_client import AWAY, delays, request
from prefect_jobs.blocks.docker_frames import Frames, Joining, LogUnreadableError, Message
from prefect_jobs.blocks.docker_place import Place
from prefect_jobs.blocks.engine import LogLine
from prefect_jobs.blocks.moments import Moments
from prefect_jobs.errors import InfrastructureError

# How often in a row the log of a container that has ended may show nothing new before it counts as read.
_ENOUGH = 2
# After so many seconds without a word the engine is asked, on another connection, whether there is more: whatever is
# between may have dropped a quiet connection and told nobody.
_SILENCE = 60.0
_BUFFER = 1 << 18


async def lines(client: aiodocker.Docker, container_id: str, after: datetime | None) -> AsyncIterator[LogLine]:
    """All lines later than ``after``, until the container has ended and its log is read.

    A line is given once it is whole, or has reached the longest length; with the time of its last part.

    Raises:
        InfrastructureError: the container has ended, and the engine cannot read its log to the end.
    """
    joining, moments, place = Joining(), Moments(), Place()
    waits, idle = delays(), 0

    def later(whole: Iterable[Message]) -> list[LogLine]:
        of = moments.of
        given = [LogLine(of(moment), stream, text.decode("utf-8", "replace")) for stream, moment, text in whole]
        return given if after is None else [line for line in given if line.timestamp > after]

    while True:
        await anext(waits)
        place.start_over()
        problem = ""
        try:
            try:
                async with aclosing(_messages(client, container_id, follow="1")) as stream:
                    async for messages in stream:
                        for line in later(joining.add(place.new(messages))):
                            yield line
                        if place.astray or (not messages and await _end(client, container_id) != (True, place.last)):
                            break
            except LogUnreadableError as error:
                problem = str(error)
            running, end = await _end(client, container_id)
            idle = 0 if running or place.moved or place.astray else idle + 1
            if not running and (end == place.last or idle >= _ENOUGH):
                for line in later(joining.rest()):
                    yield line
                if end != place.last and (end or problem):
                    raise InfrastructureError(
                        "the Docker engine does not give the container's log to its end, although it was asked again: "
                        f"{problem or 'its last line is there, and what precedes it is damaged'}"
                    )
                return
        except AWAY:
            pass
        except aiodocker.DockerError as error:
            if error.status in (404, 409):  # removed, or being removed
                return
            if error.status < 500:
                raise
        if place.moved:
            waits = delays()


async def _end(client: aiodocker.Docker, container_id: str) -> tuple[bool, Message | None]:
    """Whether the container runs, and the last message of its log; none where the engine cannot read it.

    Engines end a stream that follows a log when the container ends, now and then before the last messages.
    """
    running = (await client.containers.container(container_id).show())["State"]["Running"]
    last = None
    try:
        async for messages in _messages(client, container_id, follow="0", tail="1"):
            last = messages[-1] if messages else last
    except LogUnreadableError:
        return running, None
    return running, last


async def _messages(client: aiodocker.Docker, container_id: str, **options: str) -> AsyncGenerator[list[Message], None]:
    """The messages of the log as they come, many at once; none after a silence.

    Raises:
        LogUnreadableError: the engine cannot read the log on.
    """
    parameters = {"stdout": "1", "stderr": "1", "timestamps": "1", **options}
    frames = Frames()
    # To HTTP/1.1 the engine sends a chunk for each message, whose parsing takes longer than all else.
    async with (
        aiohttp.ClientSession(
            connector=client.connector, connector_owner=False, version=aiohttp.HttpVersion10, read_bufsize=_BUFFER
        ) as session,
        request(client, "GET", f"containers/{container_id}/logs", session=session, params=parameters) as response,
    ):
        while True:
            try:
                async with asyncio.timeout(_SILENCE):
                    data = await response.content.readany()
            except TimeoutError:
                yield []
                continue
            if not data:
                break
            if messages := frames.feed(data):
                yield messages
            frames.check()
    frames.check(ended=True)
