"""A container's lines as a Docker engine streams them: in order, each once, across dropped connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import aiodocker
import aiohttp

from prefect_jobs.blocks.docker_client import AWAY, delays, request
from prefect_jobs.blocks.engine import LONGEST_LINE, LogLine, Stream
from prefect_jobs.blocks.moments import Moments

# How often in a row the log of a container that has ended may show nothing new before it counts as read.
_ENOUGH = 2
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

    A line is given once it is whole, or has reached the longest length; with the time of its last part.
    """
    joining, moments, place = _Joining(), Moments(), _Place()
    waits, idle = delays(), 0

    def later(ends: Iterable[_Message]) -> list[LogLine]:
        given = [LogLine(moments.of(end.nanoseconds), end.stream, end.text.decode(errors="replace")) for end in ends]
        return [line for line in given if after is None or line.timestamp > after]

    while True:
        await anext(waits)
        place.start_over()
        try:
            async for message in _messages(client, container_id, follow="1"):
                if place.is_new(message):
                    for line in later(joining.add(message)):
                        yield line
            running, end = await _end(client, container_id)
            idle = 0 if running or place.moved else idle + 1
            if not running and (end == place.last or idle >= _ENOUGH):
                for line in later(joining.rest()):
                    yield line
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


class _Message(NamedTuple):
    """A message of the engine's log. One without a line break is a part of a longer line."""

    stream: Stream
    nanoseconds: int
    text: bytes


class _Place:
    """How far a log was read, while each connection reads it from its start.

    The engine gives its messages in one order, so that those that were seen are counted off: their times may be equal,
    or cross between the streams. Only where the log has lost its start, rotated away while nobody was connected, do
    the messages go on after the last one that was seen, or, if that is lost too, with the first later one.
    """

    def __init__(self) -> None:
        self.last: _Message | None = None
        self.moved = False
        """Whether this connection brought anything new."""
        self._first: _Message | None = None
        self._start: _Message | None = None
        self._seen = self._number = self._newest = 0
        self._rotated = False

    def start_over(self) -> None:
        """The log is read from its start."""
        self._number, self._rotated, self.moved = 0, False, False

    def is_new(self, message: _Message) -> bool:
        """Whether the next message of the log was not seen yet."""
        self._number += 1
        if self._number == 1:
            self._start = message
            self._rotated = self._first not in (None, message)
            self._first = self._first or message
        if self._rotated:
            if message == self.last:
                self._begin_after(self._number)
                return False
            if message.nanoseconds <= self._newest:
                return False
            self._begin_after(self._number - 1)
        if self._number <= self._seen:
            return False
        self._seen, self.last, self.moved = self._number, message, True
        self._newest = max(self._newest, message.nanoseconds)
        return True

    def _begin_after(self, number: int) -> None:
        self._seen, self._first, self._rotated = number, self._start, False


class _Joining:
    """Puts lines together whose parts are messages of their own, up to the longest length."""

    def __init__(self) -> None:
        self._parts: dict[Stream, tuple[bytearray, list[_Message]]] = {
            "stdout": (bytearray(), []),
            "stderr": (bytearray(), []),
        }

    def add(self, message: _Message) -> Iterator[_Message]:
        """The lines that a message completes, without line breaks."""
        held, last = self._parts[message.stream]
        held += message.text
        last[:] = [message]
        is_whole = held.endswith(b"\n")
        if is_whole:
            del held[-1]
        while len(held) > LONGEST_LINE:
            yield message._replace(text=bytes(held[:LONGEST_LINE]))
            del held[:LONGEST_LINE]
        if is_whole:
            yield message._replace(text=bytes(held))
            held.clear()

    def rest(self) -> Iterator[_Message]:
        """The last lines, which have no line break."""
        for held, last in self._parts.values():
            if held:
                yield last[0]._replace(text=bytes(held))


async def _end(client: aiodocker.Docker, container_id: str) -> tuple[bool, _Message | None]:
    """Whether the container runs, and if not, the last message of its log.

    Engines end a stream that follows a log when the container ends, now and then before the last messages.
    """
    if (await client.containers.container(container_id).show())["State"]["Running"]:
        return True, None
    last = [message async for message in _messages(client, container_id, follow="0", tail="1")]
    return False, last[-1] if last else None


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
