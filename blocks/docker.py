"""The Docker block: containers on a Docker engine, through its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pydantic import Field

from prefect_jobs.blocks.engine import Engine
from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.errors import MissingExtraError

try:
    from prefect_docker.credentials import DockerRegistryCredentials
    from prefect_docker.host import DockerHost
except ImportError as error:
    raise MissingExtraError("The Docker infrastructure", "docker") from error


class Docker(Infrastructure):
    """Runs a job's container on a Docker engine.

    Example:
        Load a saved block:
        ```python
        from prefect_jobs.blocks.docker import Docker

        docker = Docker.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Docker Infrastructure"
    _block_type_slug = "docker"
    _description = "Run container jobs on a Docker engine."
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]
    _logo_url = "https://cdn.sanity.io/images/3ugk85nk/production/14a315b79990200db7341e42553e23650b34bb96-250x250.png"  # type: ignore[assignment]

    host: DockerHost | None = Field(
        default=None,
        title="Docker host",
        description="The engine to use; default: DOCKER_HOST, the current Docker context, or the local socket.",
    )
    registry: DockerRegistryCredentials | None = Field(
        default=None,
        title="Registry credentials",
        description="With what to log in to the registry that images are pulled from.",
    )
    network: str | None = Field(
        default=None,
        title="Network",
        description="The network that containers join; default: the engine's own.",
        examples=["jobs"],
    )

    allow_volumes: list[str] = Field(
        default=[],
        title="Allowed volumes of others",
        description="Volumes of the engine that prefect-jobs did not make and that a job may mount all the same.",
        examples=[["reference-data"]],
    )

    @property
    def is_local(self) -> bool:
        """Whether the engine is that of one machine, as far as the block says: another may have another DOCKER_HOST."""
        url = (self.host and self.host.base_url) or "unix:"
        return urlsplit(url).hostname in (None, "localhost", "127.0.0.1", "::1")

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """The engine; all runs in an event loop that use the same engine share one connection."""
        try:
            from prefect_jobs.blocks.docker_engine import connected
        except ImportError as error:
            raise MissingExtraError("The Docker infrastructure", "docker") from error

        async with connected(self) as engine:
            yield engine
