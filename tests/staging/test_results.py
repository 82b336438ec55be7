"""A small JSON result is the run's result in Prefect, for people and for other flows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from ran import Ran

Sh = Callable[..., Awaitable[Ran]]
RESULT = {"accuracy": 0.97, "classes": ["a", "b"], "note": "é"}


async def tables(api: PrefectClient, run_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """The tables of a run that have a key."""
    asked = {"artifacts": {"flow_run_id": {"any_": [str(run_id)]}, "key": {"exists_": True}}}
    found = (await api.request("POST", "/artifacts/filter", json=asked)).json()
    return {each["key"]: json.loads(each["data"]) for each in found}


async def test_a_result_is_the_runs_result(sh: Sh, api: PrefectClient) -> None:
    ran = await sh(f"echo '{json.dumps(RESULT)}' > $JOB_OUTPUT_DIR/result.json")
    assert ran.run.attempts[0].result == RESULT
    assert await (await api.read_flow_run(ran.run.id)).state.aresult() == RESULT  # type: ignore[union-attr]
    ((key, rows),) = (await tables(api, ran.run.id)).items()
    assert key.endswith("-result")
    assert {row["result"]: row["value"] for row in rows} == {
        "accuracy": 0.97, "classes": '["a", "b"]', "note": "é", "outputs": ran.run.attempts[0].outputs
    }  # fmt: skip


async def test_a_result_needs_no_store(sh: Sh) -> None:
    ran = await sh(f"echo '{json.dumps(RESULT)}' > $JOB_OUTPUT_DIR/result.json", store=None)
    assert ran.run.attempts[0].result == RESULT


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("echo '{' > {}", "it is not JSON"),
        ("echo NaN > {}", "it is not JSON: NaN is no JSON"),
        ("""printf '{"v": 1, "\\\\ud800": 1}' > {}""", "it is not JSON: 'utf-8' codec can't encode"),
        (
            "for i in $(seq 20000); do printf '['; done > {}; for i in $(seq 20000); do printf ']'; done >> {}",
            "it is nested more than 100 levels deep",
        ),
        (
            "(for i in $(seq 101); do printf '['; done; printf 1; for i in $(seq 101); do printf ']'; done) > {}",
            "it is nested more than 100 levels deep",
        ),
        ("head -c 200000 /dev/zero | tr '\\0' 1 > {}", "it has 200,000 bytes, and at most 131,072 are taken"),
    ],
)
async def test_what_is_no_result_is_told_and_changes_nothing(sh: Sh, written: str, words: str) -> None:
    ran = await sh(written.replace("{}", "$JOB_OUTPUT_DIR/result.json"))
    assert ran.state.name == "Completed"
    assert ran.run.attempts[0].result is None
    assert any(f"result.json is no result: {words}" in told for told in ran.told), ran.told


async def test_a_secret_in_a_result_is_masked(sh: Sh, store: str, prefect_api: str) -> None:
    from prefect.blocks.system import Secret

    name = f"{store}-canary"
    await Secret(value="canary-in-a-result").save(name)  # type: ignore[misc]
    ran = await sh('echo "{\\"key\\": \\"$KEY\\"}" > $JOB_OUTPUT_DIR/result.json', secrets={"KEY": name})
    assert "canary" not in json.dumps(ran.run.attempts[0].result)
    assert list(ran.run.attempts[0].result) == ["key"]
