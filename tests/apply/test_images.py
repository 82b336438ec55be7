"""The image is pinned when a job is applied: what moves under its tag afterwards is another version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from hosts import docker
from prefect.client.schemas.responses import DeploymentResponse

from prefect_jobs import Job
from prefect_jobs.errors import ImageUnavailable

Make = Callable[..., Job]
There = Callable[[], Awaitable[DeploymentResponse]]


@pytest.fixture
def image(busybox: str, name: str) -> Iterator[str]:
    """An image of the test's own, which is the small one at first."""
    image = f"prefect-jobs-test/{name}:1"
    docker("tag", busybox, image)
    yield image
    docker("rmi", "--force", image)


def _id(image: str) -> str:
    return docker("image", "inspect", "--format", "{{ .Id }}", image).strip()


async def test_an_image_is_pinned_by_digest_which_shows_in_the_version(make: Make, there: There, image: str) -> None:
    change = await make(image=image, infrastructure="docker").apply()
    deployment = await there()
    assert deployment.parameters["job"]["image"] == _id(image)
    assert deployment.parameters["job"]["template"]["image"] == image
    assert change.version is not None
    assert change.version.endswith("-" + _id(image).removeprefix("sha256:")[:12])
    assert (await make(image=image, infrastructure="docker").apply()).what == "unchanged"


async def test_an_image_that_moved_is_a_new_version(make: Make, there: There, image: str) -> None:
    job = make(image=image, infrastructure="docker")
    before = await job.apply()
    container = docker("create", image, "true").strip()
    docker("commit", "--change", "ENV MOVED=yes", container, image)
    docker("rm", container)
    after = await job.apply()
    assert (after.what, after.details) == ("updated", ("version", "parameters"))
    assert after.version != before.version
    assert (await there()).parameters["job"]["image"] == _id(image)


async def test_a_process_pins_no_image(make: Make, there: There) -> None:
    change = await make(image="no-such-image:1").apply()
    assert (await there()).parameters["job"]["image"] is None
    assert change.version is not None
    assert "-" not in change.version


async def test_an_image_that_is_not_there_is_named(make: Make, docker_engine: None) -> None:
    with pytest.raises(ImageUnavailable, match="image 'no-such-image:1' is not on the engine"):
        await make(image="no-such-image:1", infrastructure="docker", pull_policy="Never").apply()
