from __future__ import annotations

import re
from uuid import uuid4

import pytest
from bench import Bench
from hosts import docker

from prefect_jobs.errors import ImageUnavailable
from prefect_jobs.spec import ContainerSpec


async def test_without_command_and_args_an_image_runs_as_it_was_made(bench: Bench, entrypoint_image: str) -> None:
    assert (await bench.run(ContainerSpec(image=entrypoint_image))).texts == ["entry default"]


async def test_args_alone_keep_the_entrypoint(bench: Bench, entrypoint_image: str) -> None:
    assert (await bench.run(ContainerSpec(image=entrypoint_image, args=["a", "b"]))).texts == ["entry a b"]


async def test_a_command_replaces_the_entrypoint_and_the_images_arguments(bench: Bench, entrypoint_image: str) -> None:
    assert (await bench.run(ContainerSpec(image=entrypoint_image, command=["echo", "mine"]))).texts == ["mine"]


async def test_environment_and_working_directory_of_the_image_stay(bench: Bench, entrypoint_image: str) -> None:
    command = ["sh", "-c", "echo $FROM_IMAGE; pwd"]
    assert (await bench.run(ContainerSpec(image=entrypoint_image, command=command))).texts == ["kept", "/etc"]
    changed = ContainerSpec(image=entrypoint_image, command=command, env={"FROM_IMAGE": "changed"})
    assert (await bench.run(changed)).texts == ["changed", "/etc"]


async def test_anonymous_volumes_of_an_image_go_with_the_container(bench: Bench, entrypoint_image: str) -> None:
    container = await bench.launch(ContainerSpec(image=entrypoint_image))
    await container.wait()
    mounts = docker("inspect", "--format", "{{ range .Mounts }}{{ .Name }} {{ end }}", container.id).split()  # type: ignore[attr-defined]
    anonymous = [name for name in mounts if re.fullmatch("[0-9a-f]{64}", name)]
    assert len(anonymous) == 1
    await container.remove()
    assert anonymous[0] not in docker("volume", "ls", "--quiet").split()


async def test_a_local_image_is_pinned_to_its_id(bench: Bench, busybox: str) -> None:
    found = docker("image", "inspect", "--format", "{{ .Id }}", busybox).strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", found)
    assert await bench.engine.pin(busybox, "IfNotPresent") == found
    assert await bench.engine.pin(busybox, "Never") == found
    assert (await bench.run(ContainerSpec(image=found, command=["echo", "pinned"]))).texts == ["pinned"]


async def test_what_is_pinned_already_stays_as_it_is(bench: Bench) -> None:
    for pinned in ("sha256:" + "a" * 64, "somewhere/name@sha256:" + "b" * 64):
        assert await bench.engine.pin(pinned, "Always") == pinned


async def test_an_outcome_names_the_image_that_ran(bench: Bench, busybox: str) -> None:
    outcome = (await bench.run(bench.spec("true"))).outcome
    assert outcome.image == docker("image", "inspect", "--format", "{{ .Id }}", busybox).strip()


async def test_an_image_that_may_never_be_pulled_must_be_there(bench: Bench) -> None:
    name = f"missing-{uuid4()}:1"
    words = f"image '{name}' is not on the engine, and the pull policy is Never"
    with pytest.raises(ImageUnavailable, match=words):
        await bench.launch(ContainerSpec(image=name, pull_policy="Never"))
    with pytest.raises(ImageUnavailable, match=words):
        await bench.engine.pin(name, "Never")


async def test_a_pinned_local_image_that_is_gone_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(ImageUnavailable, match="never in a registry and is not on this engine; apply the job again"):
        await bench.launch(ContainerSpec(image="sha256:" + "0" * 64))


@pytest.mark.parametrize("name", ["Upper/case", "a b", "name:", "-x", "name@sha256:short"])
async def test_a_name_that_no_image_can_have_is_refused_at_once(bench: Bench, name: str) -> None:
    with pytest.raises(ImageUnavailable, match=re.escape(repr(name))):
        await bench.launch(ContainerSpec(image=name))
    with pytest.raises(ImageUnavailable, match=re.escape(repr(name))):
        await bench.engine.pin(name, "IfNotPresent")
