"""A container with a client of its own writes where it is told, and what it wrote there is kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from ran import Ran

from prefect_jobs import ObjectStore
from prefect_jobs.manifest import Manifest

Sh = Callable[..., Awaitable[Ran]]
# What a container's client of a folder is: a path.
THERE = 'there="${JOB_OUTPUT_URI#file://}"; mkdir -p "$there"; '


@pytest.fixture(params=["process, folder"])
def setting(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def place_of(bucket: Path, ran: Ran) -> Path:
    return next(bucket.glob(f"*/{ran.run.id}"))


async def test_what_it_wrote_there_itself_is_kept_and_named(sh: Sh, bucket: Path) -> None:
    ran = await sh(THERE + 'echo model > "$there/model"; echo score > $JOB_OUTPUT_DIR/score')
    place = place_of(bucket, ran)
    assert {path.name: path.read_text() for path in (place / "output").iterdir()} == {
        "model": "model\n", "score": "score\n"
    }  # fmt: skip
    manifest = Manifest.model_validate_json((place / "manifest.json").read_text())
    assert [(file.name, file.size, file.sha256 is None) for file in manifest.files] == [
        ("model", 6, True), ("score", 6, False)
    ]  # fmt: skip
    # It is read back as any other.
    after = await sh("cat $JOB_INPUT_DIR/it/model", inputs={"it": f"store://{place.relative_to(bucket)}/output"})
    assert after.lines == ["model"]


async def test_what_an_earlier_attempt_wrote_there_is_gone_before_the_next_begins(sh: Sh, bucket: Path) -> None:
    script = THERE + 'ls "$there"; echo $JOB_ATTEMPT > "$there/of-$JOB_ATTEMPT"; [ $JOB_ATTEMPT = 2 ]'
    ran = await sh(script, retries=1)
    assert (ran.codes, ran.lines) == ([1, 0], [])
    assert [path.name for path in (place_of(bucket, ran) / "output").iterdir()] == ["of-2"]


async def test_results_of_a_step_lead_nowhere_but_below_the_store(
    sh: Sh, bucket: Path, block: ObjectStore, tmp_path: Path
) -> None:
    made = await sh("echo key > $JOB_OUTPUT_DIR/authorized_keys")
    outputs = made.run.outcome.outputs
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")

    async def taken(**branch: object) -> Ran:
        found = {"index": 0, "outcome": "succeeded", "run_id": "x", "outputs": outputs, **branch}
        content = json.dumps({"step": "s", "matrix": True, "branches": [found]})
        (bucket / "forged").mkdir(exist_ok=True)
        (bucket / "forged" / "results.json").write_text(content)
        return await sh("cat $JOB_INPUT_DIR/it/*/*", inputs={"it": "step://forged"})

    assert (await taken()).lines == ["key"]
    for wrong in ({"index": "../../out"}, {"index": -1}, {"outputs": (tmp_path / "secret").as_uri()}, {"more": 1}):
        ran = await taken(**wrong)
        assert ran.state.name == "StoreUnavailable", ran.message
        assert "results.json" in ran.message
        assert "Traceback" not in ran.message
    assert not list(tmp_path.rglob("out"))


async def test_a_step_of_a_pipeline_is_named_as_its_place_in_the_store(
    sh: Sh, bucket: Path, block: ObjectStore
) -> None:
    (bucket / "p" / "r").mkdir(parents=True)
    (bucket / "p" / "r" / "results.json").write_text(json.dumps({"step": "s", "matrix": False, "branches": []}))
    ran = await sh("echo $JOB_INPUT_URI", inputs={"s": "step://p/r#job"})
    assert json.loads(ran.lines[0]) == {"s": f"{block.url}/p/r"}
