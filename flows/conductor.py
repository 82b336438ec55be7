"""The steps of one pipeline run: each begun when what it needs has ended, until all are done or it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from prefect_jobs.errors import JobError
from prefect_jobs.flows.attempts import Logger
from prefect_jobs.flows.branches import Branch
from prefect_jobs.flows.children import CHILDREN_SECONDS, Children, Target, children_of, why_cancelled
from prefect_jobs.flows.handover import hand_over, inputs_of
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.records import outcomes_of
from prefect_jobs.flows.steps import StepRun, run_ids
from prefect_jobs.flows.summary import keep_summary
from prefect_jobs.pipeline import Pipeline

# How often it is said how far the steps are.
_TELL_SECONDS = 20.0


class Conductor:
    """Runs the steps of a pipeline."""

    def __init__(
        self,
        client: PrefectClient,
        flow_run: FlowRun,
        pipeline: Pipeline,
        values: Mapping[str, Any],
        targets: Mapping[str, Target],
        children: Children,
        logger: Logger,
    ) -> None:
        self._client = client
        self._flow_run = flow_run
        self._pipeline = pipeline
        self._values = values
        self._targets = targets
        self._children = children
        self._logger = logger
        self.steps = {name: StepRun(name, step) for name, step in pipeline.steps.items()}

    async def run(self) -> None:
        """Run all steps to their ends; what goes on is cancelled where this stumbles."""
        try:
            await self._all(list(self.steps.values()))
        except Exception:
            await self._children.cancel("its pipeline stumbled", CHILDREN_SECONDS)
            raise

    async def cancel(self) -> str:
        """Cancel what goes on, wait for its end, and run the steps that always run; what there is to say of it."""
        grace = max((target.job.grace_period.seconds for target in self._targets.values()), default=0.0)
        always = {name for name, step in self._pipeline.steps.items() if step.always}
        left = await self._children.cancel(why_cancelled(self._flow_run), grace + CHILDREN_SECONDS, but=always)
        await self._look_again()
        for step in self.steps.values():
            if step.became is None and step.name not in always:
                await self._read_outcomes(step)
                with suppress(JobError):  # Who cleans up does without it.
                    await self._hand_over(step)
                begun = any(branch.run_id is not None for branch in step.branches)
                step.end("failed" if begun else "skipped", f"step {step.name!r}: cancelled")
        await self._all([self.steps[name] for name in always if self.steps[name].became is None])
        return "no run of it goes on" if not left else f"{left} runs of it have not ended yet"

    @property
    def is_failed(self) -> bool:
        """Whether a step failed that may not fail."""
        return any(step.is_fault for step in self.steps.values())

    def verdict(self) -> str:
        """How it ended, for the message of its state."""
        if self.is_failed:
            return "\n".join(step.why for step in self.steps.values() if step.is_fault)
        ended = [f"{step.name} {step.became}" for step in self.steps.values()]
        return ", ".join(ended)

    async def summarize(self) -> None:
        """Keep a table of all branches and a picture of the graph."""
        try:
            await keep_summary(self._pipeline, self._flow_run, self.steps)
        except Exception as error:  # What was run was run.
            self._logger.warning("The summary could not be kept: %r", error)

    # -- the steps

    async def _all(self, steps: list[StepRun]) -> None:
        telling = asyncio.create_task(self._tell(), name="prefect-jobs: progress of a pipeline")
        try:
            async with asyncio.TaskGroup() as group:
                for step in steps:
                    group.create_task(self._step(step), name=f"prefect-jobs: step {step.name}")
        finally:
            telling.cancel()

    async def _step(self, step: StepRun) -> None:
        for need in step.step.needs:
            await self.steps[need].ended.wait()
        why_not = step.why_not(self.steps)
        try:
            if why_not is None:
                await self._run(step)
            await self._hand_over(step)
        except JobError as error:
            step.end("failed", f"step {step.name!r}: {error}")
        else:
            step.conclude(why_not)
        level = self._logger.warning if step.became == "failed" else self._logger.info
        level("%s: %s", step.name, step.why.removeprefix(f"step {step.name!r}: ") or step.count())

    async def _run(self, step: StepRun) -> None:
        inputs = inputs_of(self._pipeline.name, self._flow_run.id, step.step.needs, self._targets[step.step.job].job)
        step.prepare(self._values, self._targets, self.steps, inputs)
        for words in step.without_metric(self.steps):
            self._logger.warning("%s: %s", step.name, words)
        self._say_begin(step)
        await step.run(self._children)
        await self._read_outcomes(step)

    async def _hand_over(self, step: StepRun) -> None:
        takers = [other for other in self.steps.values() if step.name in other.step.needs]
        job = self._targets[step.step.job].job
        await hand_over(self._pipeline.name, self._flow_run.id, step, job, takers)

    def _say_begin(self, step: StepRun) -> None:
        if (best := step.best(self.steps)) is not None and step.choice is not None and step.step.select is not None:
            words = f"{step.name}: the best of {best.step} is {best.run_name} ({best.shown or best.index})"
            self._logger.info("%s: %s = %s", words, step.step.select.metric, step.choice.metric)
        count = len(step.branches)
        self._logger.info(
            "%s: job %s, %s", step.name, step.step.job, f"{count} runs" if step.step.is_many else "one run"
        )

    async def _tell(self) -> None:
        """Say now and then how far the steps are."""
        told: dict[str, str] = {}
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            for step in self.steps.values():
                if step.branches and step.became is None and told.get(step.name) != (words := step.count()):
                    told[step.name] = words
                    self._logger.info("%s: %s", step.name, words)

    async def _read_outcomes(self, step: StepRun) -> None:
        """Know how the runs of a step ended and what they left."""
        found = await insist(lambda: outcomes_of(self._client, run_ids(step.branches)), "read outcomes of runs")
        for branch in step.branches:
            if branch.run_id is not None and (attempts := found.get(branch.run_id)):
                branch.outcome = attempts[-1].model_copy(update={"tail": ()})
                branch.seconds = branch.outcome.seconds if branch.seconds is None else branch.seconds

    async def _look_again(self) -> None:
        """Know what became of runs for whose end nobody waited any more."""
        begun = {branch.run_id: branch for branch in self._branches() if branch.run_id and not branch.ended}
        if not begun:
            return
        async for child in children_of(self._client, self._flow_run.id):
            if (branch := begun.get(child.id)) and child.state is not None and child.state.is_final():
                branch.ended_as(child)

    def _branches(self) -> list[Branch]:
        return [branch for step in self.steps.values() for branch in step.branches]
