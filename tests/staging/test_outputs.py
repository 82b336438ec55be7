"""What a run leaves in its folders is in the store when it has ended, and its manifest says what that is."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from ran import Ran

from prefect_jobs import Job, ObjectStore
from prefect_jobs.manifest import Manifest
from prefect_jobs.outcome import Reason

Sh = Callable[..., Awaitable[Ran]]


def place_of(bucket: Path, ran: Ran) -> Path:
    """Where a run's state is."""
    return next(bucket.glob(f"*/{ran.run.id}"))


def manifest_of(bucket: Path, ran: Ran) -> Manifest:
    return Manifest.model_validate_json((place_of(bucket, ran) / "manifest.json").read_text())


async def test_outputs_are_in_the_store_with_a_manifest(sh: Sh, bucket: Path, block: ObjectStore) -> None:
    ran = await sh("cd $JOB_OUTPUT_DIR; mkdir -p a; echo one > a/1; echo two > 'b c'; ln -s /etc/passwd stolen")
    assert ran.state.name == "Completed"
    place, manifest = place_of(bucket, ran), manifest_of(bucket, ran)
    assert {file.name: file.sha256 for file in manifest.files} == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in {"a/1": "one\n", "b c": "two\n"}.items()
    }
    assert (place / "output" / "a" / "1").read_text() == "one\n"
    assert [(each.name, each.why) for each in manifest.skipped] == [("stolen", "it is a link out of the folder")]
    assert (manifest.outcome, manifest.exit_code, manifest.attempt) == (Reason.SUCCEEDED, 0, 1)
    assert not (place / "output" / "stolen").exists()
    assert "Not kept: 'stolen', because it is a link out of the folder" in ran.told
    assert ran.run.attempts[0].outputs == f"{block.url}/{place.relative_to(bucket)}/output"


async def test_outputs_of_a_run_that_failed_are_kept_too(sh: Sh, bucket: Path) -> None:
    ran = await sh("echo half > $JOB_OUTPUT_DIR/model; exit 3")
    manifest = manifest_of(bucket, ran)
    assert ([file.name for file in manifest.files], manifest.exit_code) == (["model"], 3)
    assert (ran.state.name, ran.codes) == ("Failed", [3])


async def test_only_the_last_attempts_outputs_are_there(sh: Sh, bucket: Path) -> None:
    ran = await sh('echo x > $JOB_OUTPUT_DIR/of-$JOB_ATTEMPT; [ "$JOB_ATTEMPT" = 2 ]', retries=1)
    assert ran.codes == [1, 0]
    assert [file.name for file in manifest_of(bucket, ran).files] == ["of-2"]
    assert [path.name for path in (place_of(bucket, ran) / "output").iterdir()] == ["of-2"]
    assert manifest_of(bucket, ran).attempt == 2


async def test_the_complete_log_is_kept_with_its_times(sh: Sh, bucket: Path) -> None:
    ran = await sh("for i in 1 2 3; do echo line $i; done; sleep 0.1; echo err >&2", logging={"max_lines": 1})
    lines = (place_of(bucket, ran) / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "stdout line 1", "stdout line 2", "stdout line 3", "stderr err"
    ]  # fmt: skip
    assert lines[0].split(" ")[0] == ran.records[0].timestamp.isoformat()


async def test_a_log_that_is_not_wanted_is_not_kept(sh: Sh, bucket: Path) -> None:
    ran = await sh("echo hello", logging={"store": False})
    assert not (place_of(bucket, ran) / "log.txt").exists()


async def test_a_container_knows_where_its_places_are_in_the_store(sh: Sh, bucket: Path, block: ObjectStore) -> None:
    ran = await sh("echo $JOB_OUTPUT_URI; echo $JOB_CHECKPOINT_URI")
    uri = f"{block.url}/{place_of(bucket, ran).relative_to(bucket)}"
    assert ran.lines == [f"{uri}/output", f"{uri}/checkpoint"]


async def test_a_checkpoint_goes_from_run_to_run_where_the_job_asks(
    deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]]
) -> None:
    script = 'cd $JOB_CHECKPOINT_DIR; cat step 2>/dev/null; echo "$JOB_RUN_NAME" >> step'
    job = await deploy(script, checkpoint="job")
    texts = [(await start(job, run_name=name)).lines for name in ("a", "b", "c")]
    assert texts == [[], ["a"], ["a", "b"]]
    other = await deploy(script)
    assert [(await start(other, run_name=name)).lines for name in ("a", "b")] == [[], []]
