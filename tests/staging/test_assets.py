"""What a run leaves is an asset of Prefect, made of its inputs; that of a step is made of the steps before it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from ran import Ran
from reach import until

from prefect_jobs import ObjectStore

Sh = Callable[..., Awaitable[Ran]]


@pytest.fixture(params=["process, folder"])
def setting(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def materialized(api: PrefectClient, run_id: UUID) -> tuple[str, str, set[str]]:
    """What a run has made: the event, the asset's key, and the keys of what it is made of."""
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        asked = {"filter": {"event": {"prefix": ["prefect.asset.materialization."]}, "order": "DESC"}, "limit": 50}
        events = (await api.request("POST", "/events/filter", json=asked)).json()["events"]
        found[:] = [each for each in events if each["payload"].get("run_id") == str(run_id)]
        return bool(found)

    await until(is_there, 30, "an event of an asset")
    event = found[0]
    related = {each["prefect.resource.id"] for each in event["related"] if each["prefect.resource.role"] == "asset"}
    return event["event"], event["resource"]["prefect.resource.id"], related


async def test_outputs_are_an_asset_made_of_the_inputs(
    sh: Sh, bucket: Path, block: ObjectStore, api: PrefectClient
) -> None:
    (bucket / "data").mkdir(parents=True)
    (bucket / "data" / "iris.csv").write_text("1\n")
    (bucket / "p").mkdir()
    (bucket / "p" / "results.json").write_text(json.dumps({"step": "s", "matrix": False, "branches": []}))
    ran = await sh("echo 1 > $JOB_OUTPUT_DIR/model", inputs={"iris": "store://data/iris.csv", "fit": "step://p#train"})
    job = ran.run.outcome.outputs.removeprefix(f"{block.url}/").partition("/")[0]
    event, key, sources = await materialized(api, ran.run.id)
    assert event == "prefect.asset.materialization.succeeded"
    assert key == f"{block.url}/{job}"
    assert sources == {f"{block.url}/data/iris.csv", f"{block.url}/train"}
