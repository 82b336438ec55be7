"""A container's lines as a Docker engine streams them: in order, each once, across dropped connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

import aiodocker
import aiohttp

from prefect_jobs.blocks.docker_client import AWAY, delays, request
from prefect_jobs.blocks.engine import LogLine, Stream
from prefect_jobs.blocks.moments import Moments

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


def nanoseconds(stamp: bytes) -> int:
    """A timestamp of the engine (RFC 3339, up to nanoseconds) as nanoseconds since 1970."""
    match = _TIME.fullmatch(stamp)
    if match is None:
        raise ValueError(f"not a timestamp of the Docker engine: {stamp!r}")
    seconds = int(datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int((match[2] or b"0").ljust(9, b"0"))


async def lines(client: aiodocker.Docker, container_id: str, after: datetime | None) -> AsyncIterator[LogLine]:
    """All lines later than ``after``, until the container has ended and its log is read.

    The log is always read from its start: the engine gives its messages in one order, so that after a dropped
    connection those that were seen are counted off, while their times may be equal, or cross between the streams.
    A line is given once it is whole, with the time of its last part.
    """
    seen, moments = 0, Moments()
    last: _Message | None = None
    parts: dict[Stream, list[_Message]] = {"stdout": [], "stderr": []}

    def whole(stream: Stream) -> list[LogLine]:
        """The line whose parts are all there; none where it is not later than ``after``."""
        moment = moments.of(parts[stream][-1].nanoseconds)
        text = b"".join(part.text for part in parts[stream]).removesuffix(b"\n").decode(errors="replace")
        parts[stream] = []
        return [LogLine(moment, stream, text)] if after is None or moment > after else []

    async for _ in delays():
        number = 0
        try:
            async for message in _messages(client, container_id, follow="1"):
                number += 1
                if number <= seen:
                    continue
                seen, last = number, message
                parts[message.stream].append(message)
                if message.text.endswith(b"\n"):
                    for line in whole(message.stream):
                        yield line
            if not await _is_all(client, container_id, last):
                continue
            for stream in parts:
                if parts[stream]:
                    for line in whole(stream):
                        yield line
            return
        except AWAY:
            continue
        except aiodocker.DockerError as error:
            if error.status in (404, 409):  # removed, or being removed
                return
            if error.status < 500:
                raise


class _Message(NamedTuple):
    """A message of the engine's log. One without a line break is a part of a longer line."""

    stream: Stream
    nanoseconds: int
    text: bytes


async def _is_all(client: aiodocker.Docker, container_id: str, last: _Message | None) -> bool:
    """Whether the container has ended and this is the last message of its log.

    Engines end a stream that follows a log when the container ends, now and then before the last messages.
    """
    if (await client.containers.container(container_id).show())["State"]["Running"]:
        return False
    end = [message async for message in _messages(client, container_id, follow="0", tail="1")]
    return end[-1:] == ([] if last is None else [last])


async def _messages(client: aiodocker.Docker, container_id: str, **options: str) -> AsyncIterator[_Message]:
    """The messages of the log.

    The engine sends a frame for each: a header of eight bytes with the stream and the length (Engine API, "Attach to a
    container", stream format), then a timestamp, a space, and the text.
    """
    parameters = {"stdout": "1", "stderr": "1", "timestamps": "1", **options}
    async with request(client, "GET", f"containers/{container_id}/logs", params=parameters) as response:
        while header := await _exactly(response, 8):
            stamp, _, text = (await _exactly(response, int.from_bytes(header[4:], "big"))).partition(b" ")
            yield _Message("stderr" if header[0] == 2 else "stdout", nanoseconds(stamp), text)


async def _exactly(response: aiohttp.ClientResponse, size: int) -> bytes:
    """That many bytes, or none at the end of the stream; an end half-way is a dropped connection."""
    data = b""
    while len(data) < size:
        chunk = await response.content.read(size - len(data))
        if not chunk:
            if data:
                raise aiohttp.ClientPayloadError("the log stream ended in the middle of a frame")
            return b""
        data += chunk
    return data
