"""A canary among the secrets: jobs write it everywhere, and fail in every way; then nothing that stays may hold it."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from ran import Execute, Ran, deployed, ran
from session import root
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from prefect_jobs.deployments.cli import app
from prefect_jobs.errors import JobError

# As programs write it: plain, to both streams, in JSON, in a URL, in Base64 with and without something before it, in a
# shell's trace, from a file, over the end of a piece of a line that is too long, and as the last thing that they say.
WRITES = r"""
echo "$TOKEN"; echo "token is $TOKEN!" >&2
printf '{"token": "%s"}\n' "$(printf %s "$TOKEN" | sed 's/[\\"]/\\&/g')"
printf 'https://host/?token=%s\n' "$(printf %s "$TOKEN" | sed 's/\\/%5C/g; s/"/%22/g; s/+/%2B/g; s/ /+/g')"
printf %s "$TOKEN" | base64 | tr -d '\n'; echo
printf 'user:%s' "$TOKEN" | base64 | tr -d '\n'; echo
printf '%s\033[1m%s\n' "$(echo "$TOKEN" | cut -c 1-16)" "$(echo "$TOKEN" | cut -c 17-)"
set -x; : "$TOKEN"; set +x
cat "$KEY_FILE"
[ "$JOB_ATTEMPT" = 1 ] || { head -c 1048560 /dev/zero | tr '\0' x; echo "$TOKEN"; }
sleep 0.2; printf 'the last words: %s' "$TOKEN" >&2; exit 3
"""


class Canary:
    """A secret value that is found again, whole, in part and encoded."""

    def __init__(self) -> None:
        self.core = uuid4().hex
        self.value = f'{self.core}"\\+ x'
        self.block = f"canary-{self.core[:8]}"
        self._signs = [self.core[8:20].encode(), self.core[20:].encode()]
        for before in range(3):
            self._signs.append(base64.b64encode(bytes(before) + self.core[8:].encode())[4:28])

    def is_in(self, data: bytes) -> bool:
        return any(sign in data for sign in self._signs)


@pytest.fixture
async def canary(prefect_api: str) -> Canary:
    found = Canary()
    await Secret(value=found.value).save(found.block)  # type: ignore[misc]
    key = f"-----BEGIN KEY-----\n{found.core}\n{found.core[::-1]}\n-----END KEY-----\n"
    await Secret(value=key).save(f"{found.block}-key")  # type: ignore[misc]
    return found


async def _rows(canary: Canary) -> list[str]:
    """Where in the server's database it is."""
    engine, found = create_async_engine((root() / "server-database").read_text()), []
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda there: inspect(there).get_table_names())
        assert {"log", "artifact", "flow_run_state", "task_run_state", "events"} <= set(tables)
        for table in tables:
            rows = await connection.stream(text(f'select * from "{table}"'))
            async for row in rows.mappings():
                for column, value in row.items():
                    if canary.is_in(value if isinstance(value, bytes) else str(value).encode()):
                        found.append(f"{table}.{column}: {str(value)[:300]}")
    await engine.dispose()
    return found


def _files(canary: Canary) -> Iterator[str]:
    """Where below the session's folder it is, but for the database: the server's log, the folders of processes."""
    databases = (root() / "postgres", *root().glob("*.db*"))
    for path in root().rglob("*"):
        is_plain = path.is_file() and not path.is_symlink() and not any(map(path.is_relative_to, databases))
        if is_plain and canary.is_in(path.read_bytes()):
            yield str(path)


@pytest.mark.parametrize("infrastructure", ["process", "docker"])
async def test_nothing_that_stays_holds_a_secret_whatever_a_job_does_with_it(
    infrastructure: str,
    canary: Canary,
    busybox: str,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"TOKEN": canary.block, "KEY": {"block": f"{canary.block}-key", "file": "/run/secrets/key"}}

    async def run(what: str, command: list[str], request: dict[str, object] | None = None, **keys: object) -> Ran:
        job = await deployed(
            f"{what}-{canary.block}",
            **{"infrastructure": infrastructure, "image": busybox, "command": command, "secrets": secrets, **keys},
        )
        return await ran(execute, await job.run(**(request or {})))

    written = await run("writing", ["sh", "-c", WRITES], retries={"failures": 1})
    assert written.codes == [3, 3]
    assert written.message.endswith("the last words: ***")
    assert sum("***" in line for line in written.lines) >= 20
    absent = await run("absent", ["no-such-program", "a"])
    assert absent.codes == [127]
    with pytest.raises(JobError, match="no-such-shape") as wrong:
        await run("wrong", ["true"], {"shape": "no-such-shape"})
    assert not canary.is_in(str(wrong.value).encode())
    if infrastructure == "docker":
        image = f"missing-{uuid4()}:1"
        missing = await run(
            "missing",
            ["true"],
            {"infrastructure": "docker"},
            image=image,
            infrastructure="process",
            pull_policy="Never",
        )
        assert missing.state.name == "ImageUnavailable"
        refused = await run("refused", ["true"], shape={"gpu": 1})
        assert refused.state.name == "Unschedulable"

    for words in (["show", str(written.run.id)], ["logs", str(written.run.id)], ["runs"]):
        with pytest.raises(SystemExit):
            await asyncio.to_thread(app, words)
    printed = capfd.readouterr()
    assert "the last words: ***" in printed.out
    assert not canary.is_in((printed.out + printed.err + caplog.text).encode())
    await asyncio.sleep(1)  # The server writes events a moment later.
    assert await _rows(canary) == []
    assert list(_files(canary)) == []


async def test_a_secret_that_is_given_in_plain_text_is_refused_before_the_server_has_it(
    canary: Canary, prefect_api: str
) -> None:
    job = await deployed(f"plain-{canary.block}", command=["true"], secrets={"TOKEN": canary.block})
    with pytest.raises(JobError, match="is a secret of job") as refused:
        await job.run(env={"TOKEN": canary.value})
    assert not canary.is_in(str(refused.value).encode())
    assert await _rows(canary) == []


async def test_what_the_engine_says_about_an_end_is_masked_too(canary: Canary, busybox: str, execute: Execute) -> None:
    # The engine quotes the command that it cannot start; here that is a secret as well.
    await Secret(value="no-such-program").save(canary.block, overwrite=True)  # type: ignore[misc]
    keys = {"infrastructure": "docker", "image": busybox, "secrets": {"TOKEN": canary.block}}
    job = await deployed(f"quoted-{canary.block}", command=["no-such-program"], **keys)
    done = await ran(execute, await job.run())
    assert done.codes == [127]
    assert '"***"' in done.message
    assert "no-such-program" not in "\n".join([done.message, *done.told])
