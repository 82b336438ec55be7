"""A secret as a file: there when the container starts, for its user alone, and gone when it has ended."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from uuid import uuid4

import pytest
from bench import Bench, first_line
from hosts import docker

from prefect_jobs.blocks.engine import Container
from prefect_jobs.blocks.process_container import ProcessContainer

FILES: dict[str, Any] = {"secrets": {"KEY": "tls-key", "TOKEN": "token"}, "secret_files": {"KEY": "tls.key"}}
VALUE = "-----BEGIN KEY-----\nümläut\n\nend, without a line break"


def _left_of(container: Container) -> list[str]:
    """What is still there of the file, while the container itself is."""
    if isinstance(container, ProcessContainer):
        assert container.folder.exists()
        return [str(path) for path in container.folder.rglob("tls.key")]
    words = ["docker", "cp", f"{container.id}:/run/secrets/tls.key", "-"]  # type: ignore[attr-defined]
    copied = subprocess.run(words, capture_output=True, text=True)
    assert copied.returncode == 0 or "Could not find the file" in copied.stderr, copied.stderr
    return [copied.stdout] if copied.returncode == 0 else []


async def test_a_secret_file_is_where_its_variable_says_and_holds_the_value_to_the_byte(bench: Bench) -> None:
    script = 'cat "$KEY_FILE"; echo; basename "$KEY_FILE"; wc -c < "$KEY_FILE"; echo "variable: $KEY"; echo $TOKEN'
    ended = await bench.run(bench.sh(script, **FILES), secrets={"KEY": VALUE, "TOKEN": "abc"})
    assert [text.strip() for text in ended.texts] == [
        *VALUE.split("\n"),
        "tls.key",
        str(len(VALUE.encode())),
        "variable:",
        "abc",
    ]


async def test_only_the_containers_own_user_may_read_it(bench: Bench) -> None:
    ended = await bench.run(
        bench.sh('stat -c %a "$KEY_FILE"; stat -c %u "$KEY_FILE"; id -u', **FILES), secrets={"KEY": VALUE, "TOKEN": ""}
    )
    mode, owner, user = ended.texts
    assert mode in ("400", "600")
    assert owner == user


async def test_every_attempt_has_the_file_anew(bench: Bench) -> None:
    run_id = uuid4()
    for attempt in (1, 2):
        identity = bench.identity(run_id, attempt=attempt)
        container = await bench.launch(
            bench.sh('cat "$KEY_FILE"; rm -f "$KEY_FILE"', **FILES),
            identity,
            {"KEY": f"value {attempt}", "TOKEN": ""},
        )
        assert (await bench.end_of(container)).texts == [f"value {attempt}"]
        await container.remove()


@pytest.mark.parametrize("command", [["sh", "-c", 'cat "$KEY_FILE"; exit 3'], ["no-such-command"]], ids=str)
async def test_what_has_ended_has_its_file_no_more(bench: Bench, command: list[str]) -> None:
    container = await bench.launch(bench.spec(*command, **FILES), secrets={"KEY": VALUE, "TOKEN": ""})
    await bench.end_of(container)
    assert _left_of(container) == []


async def test_while_it_runs_nothing_but_its_environment_holds_a_secret_variable(bench: Bench) -> None:
    value = f"canary-{uuid4()}"
    spec = bench.sh("echo ${#TOKEN}; sleep 30", secrets={"TOKEN": "token"})
    container = await bench.launch(spec, secrets={"TOKEN": value})
    assert await first_line(container) == str(len(value))
    if isinstance(container, ProcessContainer):
        files = [path for path in container.folder.parent.rglob("*") if path.is_file()]
        assert [path for path in files if value.encode() in path.read_bytes()] == []
    else:
        found = json.loads(docker("inspect", container.id))[0]  # type: ignore[attr-defined]
        assert f"TOKEN={value}" in found["Config"].pop("Env")
        assert value not in json.dumps(found)
