from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect_docker.credentials import DockerRegistryCredentials
from prefect_docker.host import DockerHost

from prefect_jobs.blocks.docker import Docker
from prefect_jobs.blocks.infrastructure import DEFAULT_SHAPES
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.blocks.process import Process
from prefect_jobs.errors import NotFoundError, TemplateError
from prefect_jobs.quantities import Cpu, Memory
from prefect_jobs.spec import Shape

SHAPES = {"tiny": Shape(cpu=Cpu("250m"), memory=Memory("64Mi")), "gpu": Shape(gpu=2, shared_memory=Memory("1Mi"))}


@pytest.fixture
def name(prefect_api: str) -> str:
    """A name that no block has."""
    return f"test-{uuid4()}"


async def test_a_process_block_is_loaded_as_it_was_saved(name: str) -> None:
    saved = Process(
        shapes=SHAPES,
        home=Path("/srv/jobs"),
        workspace=Path("/srv/workspace"),
        search_path=["/opt/bin"],
        pass_environment=["PATH"],
        allow_host_folders=["/srv/data"],
    )
    await saved.save(name)
    loaded = await load_infrastructure(f"process/{name}")
    assert isinstance(loaded, Process)
    assert loaded.model_dump() == saved.model_dump()
    assert loaded.shapes == SHAPES
    assert str(loaded.shapes["tiny"].cpu) == "250m"
    assert loaded.label == f"process/{name}"


async def test_a_docker_block_is_loaded_as_it_was_saved(name: str) -> None:
    registry = DockerRegistryCredentials(username="u", password="s3cr3t", registry_url="registry.example:5000")
    saved = Docker(
        shapes=SHAPES,
        host=DockerHost(base_url="tcp://127.0.0.1:1"),
        registry=registry,
        network="jobs",
        allow_privileged=True,
        allow_host_network=True,
        allow_capabilities=["NET_ADMIN"],
        allow_devices=["/dev/fuse"],
    )
    await saved.save(name)
    loaded = await load_infrastructure(f"docker/{name}")
    assert isinstance(loaded, Docker)
    assert loaded.model_dump(exclude={"host", "registry"}) == saved.model_dump(exclude={"host", "registry"})
    assert loaded.host is not None
    assert loaded.host.base_url == "tcp://127.0.0.1:1"
    assert loaded.registry is not None
    assert loaded.registry.password.get_secret_value() == "s3cr3t"


async def test_a_password_is_not_shown_by_the_api(name: str) -> None:
    registry = DockerRegistryCredentials(username="u", password="s3cr3t", registry_url="registry.example:5000")
    await Docker(registry=registry).save(name)
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, "docker", include_secrets=False)
    assert "s3cr3t" not in document.model_dump_json()


async def test_a_block_that_was_saved_again_is_the_new_one(name: str) -> None:
    await Process(shapes=SHAPES).save(name)
    await Process(shapes={}).save(name, overwrite=True)
    assert (await load_infrastructure(f"process/{name}")).shapes == {}


async def test_a_type_without_a_name_is_that_types_defaults() -> None:
    process, docker = await load_infrastructure("process"), await load_infrastructure("docker")
    assert isinstance(process, Process)
    assert isinstance(docker, Docker)
    assert process.shapes == docker.shapes == DEFAULT_SHAPES


async def test_a_block_that_is_not_there_is_named_with_what_to_do(name: str) -> None:
    with pytest.raises(
        NotFoundError, match=rf"no infrastructure block 'docker/{name}'.*Docker\(\.\.\.\)\.save\('{name}'\)"
    ):
        await load_infrastructure(f"docker/{name}")


@pytest.mark.parametrize("reference", ["kubernetes", "kubernetes/gpu"])
async def test_a_type_that_this_release_has_not_is_refused(reference: str) -> None:
    with pytest.raises(TemplateError, match=f"infrastructure '{reference}': this release has process and docker"):
        await load_infrastructure(reference)
