"""What a step hands to those that need it: the results of its runs, in the store that their jobs share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from prefect_jobs.blocks.loading import load_store
from prefect_jobs.flows.branches import Branch
from prefect_jobs.flows.steps import StepRun
from prefect_jobs.job import Job
from prefect_jobs.selection import best_of
from prefect_jobs.storage import STEP


def inputs_of(pipeline: str, run_id: UUID, needs: Iterable[str], job: Job) -> dict[str, str]:
    """The inputs by which a run of a job finds what the steps before it left; none where the job has no store."""
    return {} if job.state is None else {need: f"{STEP}://{_prefix(pipeline, run_id, need)}" for need in needs}


async def hand_over(pipeline: str, run_id: UUID, step: StepRun, job: Job, takers: Iterable[StepRun]) -> None:
    """Write the results of a step for those that need it, where its job has a store.

    Raises:
        NotFoundError: there is no such store.
        StoreError: it refuses.
    """
    takers = list(takers)
    if job.state is None or not takers:
        return
    document = {
        "step": step.name,
        "matrix": step.step.is_many,
        "branches": [_branch(branch) for branch in step.branches if branch.run_id is not None],
        "best": _best(step, takers),
    }
    async with (await load_store(job.state.block)).open() as store:
        key = f"{_prefix(pipeline, run_id, step.name)}/results.json"
        await store.write(key, f"{json.dumps(document, indent=1)}\n".encode())


def _prefix(pipeline: str, run_id: UUID, step: str) -> str:
    return f"{pipeline}/{run_id}/{step}"


def _branch(branch: Branch) -> dict[str, Any]:
    return {
        "index": branch.index,
        "parameters": branch.parameters,
        "outcome": branch.became,
        "run_id": str(branch.run_id),
        "run_name": branch.run_name,
        "result": branch.result,
        "outputs": None if branch.outcome is None else branch.outcome.outputs,
    }


def _best(step: StepRun, takers: list[StepRun]) -> int | None:
    """The best run as the first step has it that selects one of these."""
    for select in (taker.step.select for taker in takers):
        if select is not None and select.from_ == step.name:
            results = [(branch.index, branch.result) for branch in step.branches if branch.succeeded]
            choice = best_of(results, select.metric, select.mode)
            return None if choice is None else choice.index
    return None
