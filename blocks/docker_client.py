"""Talking to a Docker engine: which errors mean that it is away, and asking again until it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiodocker
import aiohttp

from prefect_jobs.blocks.patience import Patience
from prefect_jobs.errors import EngineUnavailable

logger = logging.getLogger("prefect_jobs.docker")
T = TypeVar("T")

# What the client raises when the engine is not there: not started, restarting, or its socket closed half-way.
AWAY = (aiohttp.ClientError, OSError, TimeoutError)
# What the client library gives as status where it turned one of these into an error of its own.
_NO_ANSWER = 900
# How long an engine may take to make a container, for one who is cancelled.
_MAKING_SECONDS = 30.0
_USUAL_SOCKET = "unix:///var/run/docker.sock"


def client_for(url: str | None) -> aiodocker.Docker:
    """A client of the engine at a URL, or of the one that the environment names; it need not be there yet.

    Raises:
        EngineUnavailable: the URL, or what the environment names, is none of an engine.
    """
    try:
        client = aiodocker.Docker(url=url)
    except AssertionError:
        # The environment names none, and there is no local socket: an engine that restarts has removed it.
        client = aiodocker.Docker(url=_USUAL_SOCKET)
    except (ValueError, OSError) as error:
        raise EngineUnavailable(
            f"{url or 'DOCKER_HOST or the current Docker context'} names no Docker engine: {error}; set the host of "
            "the docker block"
        ) from error
    # The library takes no limit of its own. With aiohttp's, a hundred, the streams of fifty containers would leave no
    # connection to ask anything with.
    client.session.connector._limit = 0  # type: ignore[union-attr]
    return client


def is_away(error: Exception) -> bool:
    """Whether an error means that the engine is not there, and says nothing about what it was asked."""
    return isinstance(error, AWAY) or (isinstance(error, aiodocker.DockerError) and error.status == _NO_ANSWER)


def unavailable(error: Exception) -> EngineUnavailable:
    """The error for whoever does not wait for the engine."""
    words = error.message if isinstance(error, aiodocker.DockerError) else repr(error)
    return EngineUnavailable(f"the Docker engine did not answer: {words}; start it and try again")


def _may_pass(error: Exception) -> bool:
    return is_away(error) or (isinstance(error, aiodocker.DockerError) and error.status >= 500)


_PATIENCE = Patience("The Docker engine", _may_pass, logger, first=0.2, longest=10.0)
delays = _PATIENCE.delays
insist = _PATIENCE.insist


async def carried_out(asked: Coroutine[Any, Any, T]) -> T:
    """The answer to a request that makes something, waited for also by one who is cancelled meanwhile.

    The engine goes on with a request whose asker has gone: who removes what was made must come after that.
    """
    request = asyncio.create_task(asked)
    # Of one who has gone, nobody asks for the answer.
    request.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(request)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_MAKING_SECONDS):
                await asyncio.shield(request)
        raise


@asynccontextmanager
async def request(
    client: aiodocker.Docker, method: str, path: str, *, session: aiohttp.ClientSession | None = None, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A raw request of the engine's API, for what the client library has no call for.

    ``session`` is another one than the client's own.

    Raises:
        aiodocker.DockerError: the engine answered with an error.
    """
    # The first call of the library finds out which version of the API the engine speaks.
    if client.api_version == "auto":
        await client.version()
    url = f"{client.docker_host}/{client.api_version}/{path}"
    timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
    async with (session or client.session).request(method, url, timeout=timeout, **options) as response:
        if response.status >= 400:
            try:
                message = (await response.json())["message"]
            except (ValueError, KeyError, TypeError, aiohttp.ContentTypeError):  # HEAD has no body.
                message = await response.text()
            raise aiodocker.DockerError(response.status, message)
        yield response
