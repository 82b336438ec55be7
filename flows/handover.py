"""What a step hands to those that need it: the results of its runs, in the store that their jobs share."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from uuid import UUID

from prefect_jobs.blocks.loading import load_store
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.errors import NoSuchObject
from prefect_jobs.flows.branches import Branch
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.steps import StepRun
from prefect_jobs.handed import Handed, HandedRun
from prefect_jobs.job import Job
from prefect_jobs.selection import best_of
from prefect_jobs.storage import STEP, Store, run_key


def inputs_of(pipeline: str, run_id: UUID, needs: Mapping[str, str], job: Job) -> dict[str, str]:
    """The inputs by which a run of a job finds what the steps before it left; none where the job has no store.

    ``needs`` are the steps by name, each with its job.
    """
    if job.state is None:
        return {}
    return {need: f"{STEP}://{_prefix(pipeline, run_id, need)}#{its_job}" for need, its_job in needs.items()}


async def without_outputs(job: Job, run_ids: Collection[UUID]) -> list[UUID]:
    """The runs of a job whose manifest is not in its store; none where it has no store.

    Raises:
        NotFoundError: there is no such store.
        StoreError: it refuses.
    """
    if job.state is None or not run_ids:
        return []
    async with (await _block(job.state)).open() as store:

        async def is_gone(run_id: UUID) -> bool:
            try:
                await store.read(run_key(job.name, run_id, "manifest.json"))
            except NoSuchObject:
                return True
            return False

        gone = await asyncio.gather(*map(is_gone, run_ids))
    return [run_id for run_id, is_so in zip(run_ids, gone, strict=True) if is_so]


async def hand_over(pipeline: str, run_id: UUID, step: StepRun, job: Job, takers: Iterable[StepRun]) -> None:
    """Write the results of a step for those that need it, where its job has a store.

    Raises:
        NotFoundError: there is no such store.
        StoreError: it refuses.
    """
    takers = list(takers)
    if job.state is None or not takers:
        return
    handed = Handed(
        step=step.name,
        matrix=step.step.is_many,
        branches=[_handed(branch) for branch in step.branches if branch.run_id is not None],
        best=_best(step, takers),
    )
    async with (await _block(job.state)).open() as store:
        key = f"{_prefix(pipeline, run_id, step.name)}/results.json"
        await store.write(key, f"{handed.model_dump_json(indent=1)}\n".encode())


async def _block(state: Store) -> ObjectStore:
    return await insist(partial(load_store, state.block), "read a store's block")


def _prefix(pipeline: str, run_id: UUID, step: str) -> str:
    return f"{pipeline}/{run_id}/{step}"


def _handed(branch: Branch) -> HandedRun:
    return HandedRun(
        index=branch.index,
        parameters=branch.parameters,
        outcome=branch.became,
        run_id=str(branch.run_id),
        run_name=branch.run_name,
        result=branch.result,
        outputs=None if branch.outcome is None else branch.outcome.outputs,
    )


def _best(step: StepRun, takers: list[StepRun]) -> int | None:
    """The best run as the first step has it that selects one of these."""
    for select in (taker.step.select for taker in takers):
        if select is not None and select.from_ == step.name:
            results = [(branch.index, branch.result) for branch in step.branches if branch.succeeded]
            choice = best_of(results, select.metric, select.mode)
            return None if choice is None else choice.index
    return None
