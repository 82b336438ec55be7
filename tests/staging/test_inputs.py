"""Inputs are in a container's folder when it starts; one that cannot be had ends the run before anything starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prefect.blocks.fields import SecretDict
from ran import Ran

from prefect_jobs import Job, ObjectStore
from prefect_jobs.errors import NotFoundError
from prefect_jobs.outcome import Reason

Sh = Callable[..., Awaitable[Ran]]
Deploy = Callable[..., Awaitable[Job]]
Start = Callable[..., Awaitable[Ran]]


@pytest.fixture(autouse=True)
def data(bucket: Path) -> Path:
    """Something to be read."""
    folder = bucket / "data"
    (folder / "prices" / "2026").mkdir(parents=True)
    (folder / "prices" / "2026" / "jan.csv").write_text("1\n")
    (folder / "prices" / "feb.csv").write_text("2\n")
    (folder / "iris v2.csv").write_text("iris\n")
    return folder


async def test_files_and_prefixes_are_there_under_their_names(sh: Sh) -> None:
    inputs = {"iris": "store://data/iris v2.csv", "prices": "store://data/prices"}
    ran = await sh("cd $JOB_INPUT_DIR; find . -type f | sort; cat iris prices/feb.csv", inputs=inputs)
    assert ran.lines == ["./iris", "./prices/2026/jan.csv", "./prices/feb.csv", "iris", "2"]
    assert "Input 'prices': 2 files, 0.0 MiB from store://data/prices" in ran.told


async def test_a_run_reads_other_inputs_than_its_job(
    deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]]
) -> None:
    job = await deploy("cat $JOB_INPUT_DIR/iris", inputs={"iris": "store://data/iris v2.csv"})
    assert (await start(job, inputs={"iris": "store://data/prices/feb.csv"})).lines == ["2"]
    assert (await start(job)).lines == ["iris"]


async def test_outputs_of_another_run_are_read_as_its_manifest_names_them(
    sh: Sh, bucket: Path, block: ObjectStore
) -> None:
    made = await sh("echo 1 > $JOB_OUTPUT_DIR/model")
    outputs = bucket / made.run.attempts[0].outputs.removeprefix(f"{block.url}/")  # type: ignore[union-attr]
    uri = f"store://{outputs.relative_to(bucket)}"
    async with block.open() as opened:
        await opened.write(f"{outputs.relative_to(bucket)}/stray", b"of nobody\n")
    ran = await sh("ls $JOB_INPUT_DIR/made", inputs={"made": uri})
    assert ran.lines == ["model"]

    key = str(outputs.relative_to(bucket))
    async with block.open() as opened:
        await opened.write(f"{key}/model", b"damaged\n")
    damaged = await sh("ls $JOB_INPUT_DIR/made", inputs={"made": uri})
    assert damaged.state.name == "StoreUnavailable"
    assert "its size or checksum is another" in damaged.message

    async with block.open() as opened:
        await opened.delete(f"{key.removesuffix('/output')}/manifest.json")
    unfinished = await sh("ls $JOB_INPUT_DIR/made", inputs={"made": uri})
    assert unfinished.state.name == "InputUnavailable"
    assert "the run that writes there has not ended" in unfinished.message


async def test_an_input_that_is_not_there_ends_the_run_before_it_starts(sh: Sh) -> None:
    ran = await sh("echo started", inputs={"iris": "store://data/nothing.csv"}, retries=3)
    assert (ran.state.type, ran.state.name, ran.lines) == ("CRASHED", "InputUnavailable", [])
    assert [attempt.reason for attempt in ran.run.attempts] == [Reason.INPUT_UNAVAILABLE]
    assert "input 'iris', store://data/nothing.csv" in ran.message


async def test_a_store_that_takes_nothing_ends_the_run_before_it_starts(
    sh: Sh, bucket: Path, tmp_path: Path, block: ObjectStore, store: str
) -> None:
    if block.credentials is None:
        bucket.rename(tmp_path / "elsewhere")
        bucket.write_text("no folder")
    else:
        wrong = block.model_copy(update={"credentials": SecretDict({"key": "nobody", "secret": "knows-that-one"})})
        await wrong.save(f"{store}-wrong")  # type: ignore[misc]
        store = f"{store}-wrong"
    ran = await sh("echo started", store=store)
    assert (ran.state.type, ran.state.name, ran.lines) == ("CRASHED", "StoreUnavailable", [])
    assert "knows-that-one" not in ran.message


async def test_a_store_that_nobody_saved_is_said_before_anything_is_deployed(deploy: Deploy) -> None:
    with pytest.raises(NotFoundError, match="there is no object store block 'nowhere'"):
        await deploy("echo started", store="nowhere")


async def test_a_store_that_was_removed_ends_the_run_before_it_starts(deploy: Deploy, start: Start, store: str) -> None:
    job = await deploy("echo started")
    await ObjectStore.adelete(store)
    ran = await start(job)
    assert (ran.state.name, ran.lines) == ("Failed", [])
    assert f"there is no object store block {store!r}" in ran.message
