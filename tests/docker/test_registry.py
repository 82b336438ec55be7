"""A private registry: digests, credentials, pull policies, and its own words when it refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from bench import Bench, bench_on
from hosts import docker
from prefect_docker.credentials import DockerRegistryCredentials
from registries import PASSWORD, USER, Registry, registry_in

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.errors import ImageUnavailable
from prefect_jobs.spec import ContainerSpec


@pytest.fixture(scope="module")
def registry(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_in(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def image(registry: Registry, entrypoint_image: str) -> Iterator[str]:
    """An image that is in the registry and not on the engine."""
    name = registry.push(entrypoint_image, f"private/{os.urandom(4).hex()}:1")
    yield name
    registry.forget(name)


async def test_an_image_of_a_private_registry_is_pinned_and_pulled_with_credentials(
    registry: Registry, image: str
) -> None:
    async with bench_on(Docker(registry=registry.credentials)) as bench:
        pinned = await bench.engine.pin(image, "IfNotPresent")
        assert pinned is not None
        assert pinned.startswith(image.rpartition(":")[0] + "@sha256:")
        assert (await bench.run(ContainerSpec(image=pinned))).texts == ["entry default"]
        assert bench.told == [f"Pulling image {pinned}"]
        registry.forget(pinned)


@pytest.mark.parametrize("wrong", [None, "another password"])
async def test_without_the_right_credentials_it_is_refused_in_the_registrys_words(
    registry: Registry, image: str, wrong: str | None
) -> None:
    credentials = wrong and DockerRegistryCredentials(username=USER, password=wrong, registry_url=registry.address)
    async with bench_on(Docker(registry=credentials)) as bench:
        with pytest.raises(ImageUnavailable, match=r"(?i)cannot be pulled: .*(no basic auth|unauthorized)") as refused:
            await bench.launch(ContainerSpec(image=image))
        assert PASSWORD not in str(refused.value)
        assert str(wrong) not in str(refused.value)
        with pytest.raises(ImageUnavailable, match=r"(?i)(no basic auth|unauthorized|authentication).*credentials"):
            await bench.engine.pin(image, "IfNotPresent")


async def test_an_image_that_the_registry_does_not_have_is_missing_for_good(registry: Registry) -> None:
    name = f"{registry.address}/private/never-pushed:1"
    async with bench_on(Docker(registry=registry.credentials)) as bench:
        with pytest.raises(ImageUnavailable, match=f"image '{name}' cannot be pulled: .*(not found|unknown)"):
            await bench.launch(ContainerSpec(image=name))
        with pytest.raises(
            ImageUnavailable, match=f"image '{name}' is neither on the engine nor .*check the image's name"
        ):
            await bench.engine.pin(name, "IfNotPresent")


async def test_a_tag_that_moved_is_pulled_again_only_where_the_policy_says_always(
    registry: Registry, image: str, busybox: str
) -> None:
    async with bench_on(Docker(registry=registry.credentials)) as bench:
        old = await bench.engine.pin(image, "IfNotPresent")
        await bench.run(ContainerSpec(image=image))
        container = docker("create", busybox, "true").strip()
        docker("commit", "--change", 'ENTRYPOINT ["echo", "moved"]', "--change", "CMD []", container, f"{image}-moved")
        docker("rm", container)
        local = docker("image", "inspect", "--format", "{{ .Id }}", image).strip()
        docker("tag", f"{image}-moved", image)
        docker("--config", str(registry.login), "push", "--quiet", image)
        docker("tag", local, image)

        assert (await bench.run(ContainerSpec(image=image))).texts == ["entry default"]
        new = await bench.engine.pin(image, "Always")
        assert new != old
        assert (await bench.run(ContainerSpec(image=image, pull_policy="Always"))).texts == ["moved"]
        assert (await bench.run(ContainerSpec(image=old))).texts == ["entry default"]
        for name in (f"{image}-moved", old):
            registry.forget(str(name))


async def test_a_registry_that_is_away_is_waited_for(bench: Bench) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await bench.launch(ContainerSpec(image="127.0.0.1:9/private/name:1"))
    assert bench.told[0] == "Pulling image 127.0.0.1:9/private/name:1"
    assert "did not work yet, trying again" in bench.told[1]


async def test_credentials_are_sent_to_no_other_registry_than_their_own(registry: Registry, image: str) -> None:
    elsewhere = DockerRegistryCredentials(username=USER, password=PASSWORD, registry_url="registry.example:5000")
    async with Docker(registry=elsewhere).engine() as engine:
        with pytest.raises(ImageUnavailable):
            await engine.pin(image, "Always")
    own = registry.credentials.model_copy(update={"registry_url": f"https://{registry.address}/v2/"})
    async with Docker(registry=own).engine() as engine:
        assert "@sha256:" in str(await engine.pin(image, "Always"))
