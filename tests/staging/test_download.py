"""What a run left can be had on the command line, each file checked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prefect import flow
from ran import Ran

from prefect_jobs import Job, ObjectStore, Pipeline, apply

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


@pytest.mark.parametrize("setting", ["process, folder"])
async def test_a_run_of_a_pipeline_says_where_its_outputs_are(
    deploy: Callable[..., Awaitable[Job]], command_line: CommandLine
) -> None:
    job = await deploy("true")
    pipeline = Pipeline.model_validate({"name": f"of-{job.name}", "steps": {"fit": {"job": job.name}}})
    await apply([job], [pipeline], work_pool=None)
    run = await pipeline.run()
    code, said = await command_line("outputs", str(run.id))
    assert code == 1
    assert said == (
        f"run '{run.id}' is one of a pipeline, which keeps no outputs of its own: the runs of its steps have them, and "
        f"'prefect-jobs show {run.id}' lists those\n"
    )


async def test_a_run_of_somebody_elses_flow_has_no_outputs_here(prefect_api: str, command_line: CommandLine) -> None:
    @flow
    async def stranger() -> None:
        pass

    state = await stranger(return_state=True)
    code, said = await command_line("outputs", str(state.state_details.flow_run_id))
    assert (code, said.rstrip()[-63:]) == (1, "is none of a job; 'prefect-jobs runs' shows the latest of those")


@pytest.mark.parametrize("content", [b"damaged", b'{"job": "train", "files": [{"name": "../x"}]}', b"\xff"])
async def test_a_damaged_manifest_is_named(
    sh: Sh, command_line: CommandLine, block: ObjectStore, content: bytes
) -> None:
    ran = await sh("echo one > $JOB_OUTPUT_DIR/1")
    manifest = str(ran.run.attempts[0].outputs).removeprefix(f"{block.url}/").removesuffix("output") + "manifest.json"
    async with block.open() as store:
        await store.write(manifest, content)
    code, said = await command_line("outputs", str(ran.run.id))
    assert code == 1
    assert said.startswith(f"{block.url}/{manifest} is not what prefect-jobs writes there: ")
    assert "Traceback" not in said
