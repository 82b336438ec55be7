"""Secrets as files in Docker: in memory, for whatever user the container runs as, and nowhere else on the engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, first_line
from hosts import docker

from prefect_jobs.blocks import docker_secrets
from prefect_jobs.blocks.engine import Container
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.spec import Security

FILES: dict[str, Any] = {"secrets": {"KEY": "tls-key"}, "secret_files": {"KEY": "tls.key"}}
CANARY = "canary-of-a-secret-file"
READ = 'stat -c "%a %u" "$KEY_FILE"; cat "$KEY_FILE"'


@pytest.fixture(scope="module")
def image_with_users(busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that runs as a user whom it knows by name."""
    name, passwd = f"prefect-jobs-test/users:{os.getpid()}", tmp_path_factory.mktemp("users") / "passwd"
    passwd.write_text("root:x:0:0::/:/bin/sh\napp:x:1234:100::/tmp:/bin/sh\n")
    container = docker("create", busybox, "true").strip()
    docker("cp", str(passwd), f"{container}:/etc/passwd")
    docker("commit", "--change", "USER app", container, name)
    docker("rm", container)
    yield name
    docker("rmi", "--force", name)


async def test_it_is_in_memory_and_neither_on_the_engines_disk_nor_in_its_view_of_the_container(
    bench: Bench, inspect: Callable[[Container], dict[str, Any]]
) -> None:
    container = await bench.launch(
        bench.sh("grep ' /run/secrets ' /proc/mounts; sleep 30", **FILES), secrets={"KEY": CANARY}
    )
    assert (await first_line(container)).startswith("tmpfs /run/secrets tmpfs")
    found = inspect(container)
    assert CANARY not in json.dumps(found)
    layer = Path(found["GraphDriver"]["Data"]["UpperDir"])
    assert layer.is_dir()
    assert [path for path in layer.rglob("*") if path.is_file() and CANARY in path.read_text(errors="replace")] == []


@pytest.mark.parametrize("user", ["0", "1000", "1000:1000"])
async def test_a_user_by_number_owns_it(bench: Bench, user: str) -> None:
    ended = await bench.run(bench.sh(READ, security=Security(user=user), **FILES), secrets={"KEY": CANARY})
    assert ended.texts == [f"400 {user.partition(':')[0]}", CANARY]


async def test_the_user_of_the_image_owns_it(bench: Bench, image_with_users: str) -> None:
    ended = await bench.run(bench.sh(READ, image=image_with_users, **FILES), secrets={"KEY": CANARY})
    assert ended.texts == ["400 1234", CANARY]


async def test_a_user_whom_nobody_knows_is_refused_without_the_value(bench: Bench) -> None:
    with pytest.raises(InfrastructureError, match="'nobody-knows' is not in the image's /etc/passwd") as refused:
        await bench.launch(bench.sh(READ, security=Security(user="nobody-knows"), **FILES), secrets={"KEY": CANARY})
    assert CANARY not in str(refused.value)


async def test_an_engine_that_does_not_keep_it_is_named_and_the_container_does_not_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(docker_secrets, "_hold", hold_nothing)
    identity = bench.identity()
    with pytest.raises(InfrastructureError, match="does not keep files in a volume of type tmpfs"):
        await bench.launch(bench.sh("echo started", **FILES), identity, {"KEY": CANARY})
    assert docker("inspect", "--format", "{{ .State.Status }}", identity.container_name).strip() == "created"


async def test_what_a_supervisor_that_died_in_the_middle_left_is_in_nobodys_way_and_goes_with_the_run(
    bench: Bench,
) -> None:
    identity = bench.identity()

    def die() -> None:
        label = f"prefect-jobs/holds-secrets-of={identity.run_id}"
        docker("create", "--name", f"{identity.container_name}-secrets", "--label", label, bench.image or "", "true")

    die()
    container = await bench.launch(bench.sh(READ, **FILES), identity, {"KEY": CANARY})
    assert (await bench.end_of(container)).texts == ["400 0", CANARY]
    assert docker("ps", "-aq", "--filter", f"name={identity.run_id}").split() == [container.id[:12]]  # type: ignore[attr-defined]
    await container.remove()
    die()
    await bench.engine.release(identity.run_id)
    assert docker("ps", "-aq", "--filter", f"name={identity.run_id}") == ""
    assert docker("volume", "ls", "-q", "--filter", f"name={identity.run_id}") == ""
