"""The outcome of each attempt, kept in Prefect as an artifact of the run: people see a table, programs read it back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_table_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
)
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from pydantic import ValidationError

from prefect_jobs.outcome import Outcome

# Prefect's UI does not draw a table with an empty heading.
_NAME, _VALUE = "outcome", "value"
# The API lists no more at once; a run has one artifact for each attempt.
_PAGE, _RUNS_AT_ONCE = 200, 100
_NAMES = {"tail": "last lines"}


async def record(outcome: Outcome, job: str, infrastructure: str) -> None:
    """Keep an outcome beside the run that is running now."""
    document = outcome.model_dump(mode="json")
    rows = [
        {_NAME: _NAMES.get(key, key), _VALUE: _shown(key, value)}
        for key, value in document.items()
        if value is not None and (key == "result" or value not in ("", []))
    ]
    # The UI shows some 40 characters of it before one opens it: how it ended comes first.
    summary = outcome.summary().partition("\n")[0]
    title = f"Attempt {outcome.attempt}: {summary} (job {job} on {infrastructure})"
    await acreate_table_artifact(rows, description=title)


def _shown(key: str, value: Any) -> Any:
    if key == "result":
        return json.dumps(value)
    return "\n".join(value) if key == "tail" else value


async def outcomes(client: PrefectClient, run_id: UUID) -> list[Outcome]:
    """The outcomes of a run's attempts so far, in their order."""
    return (await outcomes_of(client, [run_id])).get(run_id, [])


async def outcomes_of(client: PrefectClient, run_ids: Sequence[UUID]) -> dict[UUID, list[Outcome]]:
    """The outcomes of the attempts of many runs, by run and in their order; runs without any are left out."""
    # An attempt has two where the answer to the first was lost: the newest counts, and comes first.
    found: dict[UUID, dict[int, Outcome]] = {}
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        chosen = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(run_ids[start : start + _RUNS_AT_ONCE])),
            type=ArtifactFilterType(any_=["table"]),
        )
        async for artifact in artifacts(client, chosen):
            outcome = _parse(artifact.data)
            if outcome is not None and artifact.flow_run_id is not None:
                found.setdefault(artifact.flow_run_id, {}).setdefault(outcome.attempt, outcome)
    return {run_id: [of_run[attempt] for attempt in sorted(of_run)] for run_id, of_run in found.items()}


async def artifacts(client: PrefectClient, chosen: ArtifactFilter) -> AsyncIterator[Artifact]:
    """The artifacts that a filter chooses, the newest first."""
    # Prefect's client always sends a filter for task runs, which leaves out what belongs to one that the server has yet
    # to hear of: it learns of task runs by events, and of artifacts at once.
    asked = {"artifacts": chosen.model_dump(mode="json", exclude_unset=True), "sort": ArtifactSort.CREATED_DESC.value}
    offset = 0
    while True:
        page_asked = {**asked, "limit": _PAGE, "offset": offset}
        response = await client.request("POST", "/artifacts/filter", json=page_asked)
        page = [Artifact.model_validate(each) for each in response.json()]
        for artifact in page:
            yield artifact
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _parse(data: Any) -> Outcome | None:
    try:
        rows = json.loads(data) if isinstance(data, str) else data
        document = {row[_NAME]: row[_VALUE] for row in rows}
        document["tail"] = document.pop("last lines").split("\n") if "last lines" in document else []
        if "result" in document:
            document["result"] = json.loads(document["result"])
        return Outcome.model_validate_json(json.dumps(document))
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
