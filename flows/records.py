"""The outcome of each attempt, kept in Prefect as an artifact of the run: people see a table, programs read it back."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_table_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    TaskRunFilter,
)
from prefect.client.schemas.sorting import ArtifactSort
from pydantic import ValidationError

from prefect_jobs.outcome import Outcome

# Prefect's UI does not draw a table with an empty heading.
_NAME, _VALUE = "outcome", "value"
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
    artifacts = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]), type=ArtifactFilterType(any_=["table"])
        ),
        # The server refuses a missing filter, and takes an empty one for none.
        flow_run_filter=FlowRunFilter(),
        task_run_filter=TaskRunFilter(),
        sort=ArtifactSort.CREATED_DESC,
        limit=200,
    )
    # The newest comes first. An attempt has two where the answer to the first was lost.
    found = {
        outcome.attempt: outcome for artifact in reversed(artifacts) if (outcome := _parse(artifact.data)) is not None
    }
    return [found[attempt] for attempt in sorted(found)]


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
