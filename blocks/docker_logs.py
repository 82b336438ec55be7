"""A container's lines as a Docker engine streams them: in order, each once, across dropped connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiodocker
import aiohttp

from prefect_jobs.blocks.docker_client import AWAY, delays, request
from prefect_jobs.blocks.engine import LogLine, Stream

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

    The engine is asked anew after a dropped connection, from the last line's nanosecond on; lines of that very
    nanosecond that were seen already are skipped by their number.
    """
    last = -1 if after is None else round(after.timestamp() * 1e6) * 1000 + 999
    seen_at_last = 0
    async for _ in delays():
        skip = seen_at_last
        try:
            async for when, stream, text in _follow(client, container_id, last):
                if when < last or (when == last and skip > 0):
                    skip -= when == last
                    continue
                seen_at_last = seen_at_last + 1 if when == last else 1
                last = when
                yield LogLine(datetime.fromtimestamp(when / 1e9, UTC), stream, text.decode(errors="replace"))
            return
        except AWAY:
            continue
        except aiodocker.DockerError as error:
            if error.status in (404, 409):  # removed, or being removed
                return
            if error.status < 500:
                raise


async def _follow(client: aiodocker.Docker, container_id: str, since: int) -> AsyncIterator[tuple[int, Stream, bytes]]:
    """Lines from one connection. A line is given once it is whole, with the time of its first part.

    The engine sends a frame for each message of its log: a header of eight bytes with the stream and the length
    (Engine API, "Attach to a container", stream format), then a timestamp, a space, and the text. A message without a
    line break is a part of a longer line.
    """
    parameters = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1"}
    if since >= 0:
        parameters["since"] = f"{since // 10**9}.{since % 10**9:09d}"
    parts: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}
    started: dict[Stream, int] = {}
    async with request(client, "GET", f"containers/{container_id}/logs", params=parameters) as response:
        while header := await _exactly(response, 8):
            stream: Stream = "stderr" if header[0] == 2 else "stdout"
            stamp, _, text = (await _exactly(response, int.from_bytes(header[4:], "big"))).partition(b" ")
            if not parts[stream]:
                started[stream] = nanoseconds(stamp)
            parts[stream].append(text.removesuffix(b"\n"))
            if text.endswith(b"\n"):
                yield started[stream], stream, b"".join(parts[stream])
                parts[stream] = []
        for stream, rest in parts.items():
            if rest:
                yield started[stream], stream, b"".join(rest)


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
