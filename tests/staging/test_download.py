"""What a run left can be had on the command line, each file checked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from ran import Ran

Sh = Callable[..., Awaitable[Ran]]
CommandLine = Callable[..., Awaitable["tuple[int, str]"]]


@pytest.fixture
def command_line() -> CommandLine:
    """Calls prefect-jobs: its exit code, and all that it said."""
    import asyncio

    from reach import BIN

    async def call(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            BIN / "prefect-jobs", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, wrong = await process.communicate()
        return process.returncode or 0, said.decode() or wrong.decode()

    return call


async def test_outputs_are_shown_and_downloaded(
    sh: Sh, command_line: CommandLine, bucket: Path, tmp_path: Path
) -> None:
    ran = await sh("cd $JOB_OUTPUT_DIR; mkdir -p a; echo one > a/1; echo two > 2")
    code, said = await command_line("outputs", str(ran.run.id), "--json")
    assert (code, [(row["name"], row["bytes"]) for row in json.loads(said)]) == (0, [("2", 4), ("a/1", 4)])
    code, said = await command_line("outputs", ran.run.name, "--download", str(tmp_path / "here"))
    assert code == 0, said
    assert f"2 files are in {tmp_path / 'here'}" in said
    assert (tmp_path / "here" / "a" / "1").read_text() == "one\n"

    (bucket / "/".join(ran.run.attempts[0].outputs.split("/")[-3:]) / "2").write_text("six\n")  # type: ignore[union-attr]
    code, said = await command_line("outputs", str(ran.run.id), "--download", str(tmp_path / "there"))
    assert code == 1
    assert "its size or checksum is another" in said
    assert not (tmp_path / "there" / "2").exists()


async def test_a_run_that_keeps_nothing_says_so(sh: Sh, command_line: CommandLine) -> None:
    ran = await sh("true", store=None)
    code, said = await command_line("outputs", str(ran.run.id))
    assert code == 1
    assert "the job has no store" in said
