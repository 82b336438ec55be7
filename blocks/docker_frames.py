"""What a Docker engine sends as a container's log: bytes to messages, messages to whole lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import aiohttp

from prefect_jobs.blocks.engine import LONGEST_LINE, Stream

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_HEADER = 8
_STDERR, _ENGINE = 2, 3


class Message(NamedTuple):
    """A message of the engine's log. One without a line break is a part of a longer line."""

    stream: Stream
    nanoseconds: int
    text: bytes


class LogUnreadableError(Exception):
    """The engine says, in place of a message, that it cannot read the log on; asked again, it often can."""


def nanoseconds(stamp: bytes) -> int:
    """A timestamp of the engine (RFC 3339, up to nanoseconds) as nanoseconds since 1970."""
    match = _TIME.fullmatch(stamp)
    if match is None:
        raise ValueError(f"not a timestamp of the Docker engine: {stamp!r}")
    seconds = int(datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int((match[2] or b"0").ljust(9, b"0"))


class Frames:
    """Cuts a stream of bytes into messages.

    The engine sends a frame for each: a header of eight bytes with the stream and the length (Engine API, "Attach to a
    container", stream format), then a timestamp, a space, and the text.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._problem: str | None = None
        # Most messages were written in the same second as the one before them.
        self._second, self._second_is = b"", 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete, up to where the engine says that it cannot read the log on."""
        data = self._rest + data
        messages = []
        start, size = 0, len(data)
        while start + _HEADER <= size:
            end = start + _HEADER + int.from_bytes(data[start + 4 : start + _HEADER], "big")
            if end > size:
                break
            kind = data[start]
            if kind == _ENGINE:
                self._problem = data[start + _HEADER : end].decode(errors="replace").strip()
                break
            blank = data.index(b" ", start + _HEADER, end)
            moment = self._moment(data[start + _HEADER : blank])
            messages.append(Message("stderr" if kind == _STDERR else "stdout", moment, data[blank + 1 : end]))
            start = end
        self._rest = data[start:]
        return messages

    def _moment(self, stamp: bytes) -> int:
        if len(stamp) != 30 or stamp[:20] != self._second:
            moment = nanoseconds(stamp)
            self._second, self._second_is = stamp[:20], moment - moment % 10**9
            return moment
        return self._second_is + int(stamp[20:29])

    def check(self, ended: bool = False) -> None:
        """See that the stream is sound, at its end that it is whole.

        Raises:
            LogUnreadableError: the engine cannot read the log on.
            aiohttp.ClientPayloadError: the stream has ended in the middle of a frame; its connection was dropped.
        """
        if self._problem is not None:
            raise LogUnreadableError(self._problem)
        if ended and self._rest:
            raise aiohttp.ClientPayloadError("the log stream ended in the middle of a frame")


class Joining:
    """Puts lines together whose parts are messages of their own, up to the longest length."""

    def __init__(self) -> None:
        self._parts: dict[Stream, tuple[bytearray, list[Message]]] = {
            "stdout": (bytearray(), []),
            "stderr": (bytearray(), []),
        }

    def add(self, messages: Sequence[Message]) -> list[Message]:
        """The lines that messages complete, without line breaks."""
        whole: list[Message] = []
        for message in messages:
            stream, moment, text = message
            if not self._parts[stream][0] and text.endswith(b"\n") and len(text) <= LONGEST_LINE:
                whole.append(Message(stream, moment, text[:-1]))
            else:
                self._join(message, whole)
        return whole

    def _join(self, message: Message, whole: list[Message]) -> None:
        held, last = self._parts[message.stream]
        held += message.text
        last[:] = [message]
        is_whole = held.endswith(b"\n")
        if is_whole:
            del held[-1]
        while len(held) > LONGEST_LINE:
            whole.append(message._replace(text=bytes(held[:LONGEST_LINE])))
            del held[:LONGEST_LINE]
        if is_whole:
            whole.append(message._replace(text=bytes(held)))
            held.clear()

    def rest(self) -> list[Message]:
        """The last lines, which have no line break."""
        return [last[0]._replace(text=bytes(held)) for held, last in self._parts.values() if held]
