"""Images on a Docker engine: finding a digest, pulling, and telling a missing image from a slow registry."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING

import aiodocker
from docker import auth
from docker.errors import InvalidRepository

from prefect_jobs.blocks.docker_client import AWAY, delays, is_away, request, unavailable
from prefect_jobs.blocks.engine import Tell
from prefect_jobs.errors import ImageUnavailable
from prefect_jobs.spec import PullPolicy

if TYPE_CHECKING:
    from prefect_docker.credentials import DockerRegistryCredentials

# How registries and the engine say that trying again will not help; everything else may pass.
_PERMANENT = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|forbidden|no basic auth|invalid reference|"
    r"invalid (repository|tag)|must be lowercase|no matching manifest|unsupported",
    re.IGNORECASE,
)
_PINNED = re.compile(r"(^|@)sha256:[0-9a-f]{64}$")
_REFUSALS = (400, 401, 403, 404)


class Images:
    """The images of one engine."""

    def __init__(self, client: aiodocker.Docker, credentials: DockerRegistryCredentials | None) -> None:
        self.client = client
        self.credentials = credentials

    async def pin(self, image: str, policy: PullPolicy) -> str:
        """The image by digest: ``name@sha256:…`` where a registry knows it, else the engine's own ``sha256:…``."""
        if _PINNED.search(image):
            return image
        try:
            if policy != "Always" and (local := await self._local_digest(image)):
                return local
            if policy == "Never":
                raise ImageUnavailable(f"image {image!r} is not on the engine, and the pull policy is Never")
            async with request(
                self.client, "GET", f"distribution/{image}/json", headers=self._authorization(image)
            ) as response:
                digest = (await response.json())["Descriptor"]["digest"]
            return f"{_repository(image)}@{digest}"
        except AWAY as error:
            raise unavailable(error) from error
        except aiodocker.DockerError as error:
            if is_away(error):
                raise unavailable(error) from error
            raise ImageUnavailable(
                f"image {image!r} is neither on the engine nor can its registry name a digest: {error.message}; check "
                "the image's name, build or push it, or set the registry credentials of the block"
            ) from error

    async def _local_digest(self, image: str) -> str | None:
        try:
            found = await self.client.images.inspect(image)
        except aiodocker.DockerError as error:
            if error.status == 404:
                return None
            raise
        repository = _repository(image)
        for digest in found.get("RepoDigests") or []:
            if str(digest).partition("@")[0] == repository:
                return str(digest)
        return str(found["Id"])

    async def provide(self, image: str, policy: PullPolicy, tell: Tell) -> None:
        """Have the image on the engine, as the pull policy says; wait out what may pass.

        Raises:
            ImageUnavailable: with the registry's own words.
        """
        local_only = image.startswith("sha256:")
        if (policy != "Always" or local_only) and await self._is_local(image):
            return
        if local_only:
            raise ImageUnavailable(
                f"the job was pinned to {image}, which was never in a registry and is not on this engine; apply the "
                "job again, or push the image to a registry first"
            )
        if policy == "Never":
            raise ImageUnavailable(f"image {image!r} is not on the engine, and the pull policy is Never")
        tell(f"Pulling image {image}")
        async for _ in delays():
            try:
                await self._pull(image)
                return
            except aiodocker.DockerError as error:
                if error.status in _REFUSALS or _PERMANENT.search(error.message):
                    raise ImageUnavailable(f"image {image!r} cannot be pulled: {error.message}") from error
                tell(f"Pulling image {image} did not work yet, trying again: {error.message}")

    async def _is_local(self, image: str) -> bool:
        try:
            await self.client.images.inspect(image)
        except aiodocker.DockerError as error:
            if error.status == 404:
                return False
            if error.status == 400:
                raise ImageUnavailable(f"image {image!r} has no valid name: {error.message}") from error
            raise
        return True

    async def _pull(self, image: str) -> None:
        parameters = {"fromImage": image}
        if "@" not in image and ":" not in image.rpartition("/")[2]:
            parameters["tag"] = "latest"
        async with request(
            self.client, "POST", "images/create", params=parameters, headers=self._authorization(image)
        ) as response:
            async for line in response.content:
                progress = json.loads(line)
                if "error" in progress:
                    raise aiodocker.DockerError(500, progress["error"])
                await asyncio.sleep(0)

    def _authorization(self, image: str) -> dict[str, str]:
        """The header by which the engine logs in to a registry (Engine API, "Authentication").

        The engine sends it to whatever registry the image names, so that it is only for images of the registry that
        the credentials are for: a job must not carry them elsewhere.
        """
        if self.credentials is None or _registry(image) != auth.resolve_index_name(self.credentials.registry_url):
            return {}
        content = {
            "username": self.credentials.username,
            "password": self.credentials.password.get_secret_value(),
            "serveraddress": self.credentials.registry_url,
        }
        return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(content).encode()).decode()}


def _registry(image: str) -> str | None:
    """The registry of an image, as the engine understands its name; None where the name is none."""
    try:
        return str(auth.resolve_repository_name(image)[0])
    except InvalidRepository:
        return None


def _repository(image: str) -> str:
    """An image's name without tag and digest."""
    name = image.partition("@")[0]
    head, _, tail = name.rpartition(":")
    return head if head and "/" not in tail else name
