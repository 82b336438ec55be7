"""A private registry: digests, credentials, pull policies, and its own words when it refuses."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench import Bench, bench_on
from hosts import docker
from needs import needs, wait_until
from prefect_docker.credentials import DockerRegistryCredentials

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.errors import ImageUnavailable
from prefect_jobs.spec import ContainerSpec

USER, PASSWORD = "somebody", "s3cret-of-the-registry"


@dataclass(frozen=True)
class Registry:
    address: str
    login: Path

    @property
    def credentials(self) -> DockerRegistryCredentials:
        return DockerRegistryCredentials(username=USER, password=PASSWORD, registry_url=self.address)

    def push(self, source: str, name: str) -> str:
        """Push a local image, forget it locally, and return its name in the registry."""
        name = f"{self.address}/{name}"
        docker("tag", source, name)
        docker("--config", str(self.login), "push", "--quiet", name)
        self.forget(name)
        return name

    def forget(self, name: str) -> None:
        subprocess.run(["docker", "rmi", name], capture_output=True)


@pytest.fixture(scope="module")
def registry(busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    program, htpasswd = shutil.which("docker-registry"), shutil.which("htpasswd")
    if not program or not htpasswd:
        needs("no private registry: apt-get install docker-registry apache2-utils")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    passwords = subprocess.run([str(htpasswd), "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True)
    (folder / "htpasswd").write_text(passwords.stdout)
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\nlog: {{level: error}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
    try:
        registry = Registry(address, folder / "login")
        _wait_for(address)
        docker("--config", str(registry.login), "login", "--username", USER, "--password", PASSWORD, address)
        yield registry
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    wait_until(answers, 20, "the registry")


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
