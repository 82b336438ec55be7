"""What a run leaves for people and for other flows: an artifact, Prefect's own result, and its assets."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_table_artifact
from prefect.assets import Asset
from prefect.client.schemas.objects import State
from prefect.context import AssetContext
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.errors import StoreError
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.states import run_state
from prefect_jobs.job import Job
from prefect_jobs.outcome import Outcome
from prefect_jobs.storage import run_key

_logger = logging.getLogger("prefect_jobs.results")
# Prefect's UI does not draw a table with an empty heading.
_NAME, _VALUE = "result", "value"


async def concluded(job: Job, run_id: UUID, outcome: Outcome, block: ObjectStore, inputs: list[str]) -> State[Any]:
    """The state of a run that ended so, when what it left is shown to people and to other flows."""
    state = run_state(outcome)
    if outcome.result is not None or outcome.outputs is not None:
        await insist(lambda: _show(job, outcome), "show a result")
    if job.state is None:
        return state
    _tell_of_assets(job, run_id, outcome, block, inputs, state)
    if not outcome.succeeded or outcome.result is None:
        return state
    kept = ResultStore(result_storage=block, serializer=JSONSerializer(), cache_result_in_memory=False)
    record = kept.create_result_record(outcome.result, key=run_key(job.name, run_id, "result"))
    try:
        await kept.apersist_result_record(record)
    except StoreError as error:
        # The job is done, and its result stands in the table and in its outputs.
        _logger.warning("The result of run %s is not there as Prefect's own: %s", run_id, error)
        return state
    return State(type=state.type, name=state.name, message=state.message, data=record)


async def _show(job: Job, outcome: Outcome) -> None:
    """A table of the run, which is also the newest of its job: the UI keeps the history of a key."""
    result = outcome.result
    rows = [{_NAME: key, _VALUE: _cell(value)} for key, value in result.items()] if isinstance(result, dict) else []
    if result is not None and not rows:
        rows = [{_NAME: "result", _VALUE: _cell(result)}]
    if outcome.outputs is not None:
        rows.append({_NAME: "outputs", _VALUE: outcome.outputs})
    key = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")
    title = f"Result of job {job.name}" if result is not None else f"Outputs of job {job.name}"
    await acreate_table_artifact(rows, key=f"{key}-result", description=f"{title}: {outcome.summary().splitlines()[0]}")


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _tell_of_assets(
    job: Job, run_id: UUID, outcome: Outcome, block: ObjectStore, inputs: list[str], state: State[Any]
) -> None:
    """Tell Prefect that the job's outputs were made anew, and of what; they are one asset, whichever run makes them."""
    made = _assets([f"{block.url.rstrip('/')}/{job.name}"])
    lineage = AssetContext(
        direct_asset_dependencies=_assets(inputs), downstream_assets=made, materialized_by="prefect-jobs"
    )
    for asset in made:
        lineage.materialization_metadata[asset.key] = {"run_id": str(run_id), "outputs": outcome.outputs}
    lineage.emit_events(state)


def _assets(uris: Any) -> set[Asset]:
    """Those of some URIs that Prefect takes as the key of an asset."""
    found = set[Asset]()
    for uri in uris:
        try:
            found.add(Asset(key=uri.partition("?")[0]))
        except ValueError as error:
            _logger.debug("%s is no key of an asset: %s", uri, error)
    return found
