"""The steps of one pipeline run: each begun when what it needs has ended, until all are done or it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from prefect_jobs.errors import JobError
from prefect_jobs.flows.branches import Branch
from prefect_jobs.flows.children import CHILDREN_SECONDS, Children, Target, children_of, runs_left, why_cancelled
from prefect_jobs.flows.handover import hand_over, inputs_of, without_outputs
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.records import outcomes_of
from prefect_jobs.flows.steps import StepRun, run_ids
from prefect_jobs.flows.summary import keep_summary
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.wiring import check_wiring

if TYPE_CHECKING:
    from prefect_jobs.flows.attempts import Logger

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
        self.steps = _fresh(pipeline)
        self._recalled: list[StepRun] = []
        """The steps that were over under a supervisor that is gone."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._pipeline.name

    def check(self) -> None:
        """See that the jobs, which may have been changed since, still take what the steps give them.

        Raises:
            TemplateError: the message names step and key.
        """
        check_wiring(self._pipeline, {name: target.job for name, target in self._targets.items()})

    async def recall(self) -> int:
        """Find what was started before; how many runs."""
        return await self._children.recall()

    async def recall_anothers(self) -> None:
        """Know what a supervisor that is gone had begun, and what became of it: nothing more of it is begun."""
        await self._children.recall(is_anothers=True)
        needs = {name: step.step.needs for name, step in self.steps.items()}
        for name in TopologicalSorter(needs).static_order():
            if all(self.steps[need].became is not None for need in needs[name]):
                await self._recall_step(self.steps[name])

    async def _recall_step(self, step: StepRun) -> None:
        if (why_not := step.why_not(self.steps)) is not None:
            step.conclude(why_not)
            return
        with suppress(JobError):  # Its job was changed since, or it could not begin.
            self._prepare(step)
        for branch in step.branches:
            self._children.know(branch)
        if not step.is_begun:
            step.forget()
        elif step.is_over:
            await self._read_outcomes(step)
            step.conclude()
            self._recalled.append(step)

    async def run(self) -> None:
        """Run all steps to their ends, and again after a failure; what goes on is cancelled where this stumbles."""
        try:
            await self._all(list(self.steps.values()))
            while self.is_failed and await self._begin_again():
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
                await self._end_cancelled(step)
            elif step in self._recalled:
                await self._try_to_hand_over(step)
        await self._all([self.steps[name] for name in always if self.steps[name].became is None])
        return runs_left(left)

    async def _end_cancelled(self, step: StepRun) -> None:
        if not step.is_begun and self._children.has_some_of(step.name):
            # What is in the store of it stays as it is.
            step.end("failed", "cancelled; its job was changed since, and its runs could not be told from one another")
            return
        await self._read_outcomes(step)
        await self._try_to_hand_over(step)
        if step.is_begun:
            step.end("failed", "cancelled")
        else:
            step.end("skipped", "not begun, for the pipeline was cancelled")

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
            await keep_summary(self._client, self._pipeline, self._flow_run, self.steps)
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

    async def _begin_again(self) -> bool:
        """Wait, and forget what became of the steps: what succeeded is there; False where no retry is left."""
        policy, retry = self._pipeline.retry_policy, self._children.retried + 1
        if retry > policy.failures:
            return False
        delay = policy.delay.seconds
        words = f"retry {retry} of {policy.failures}" + (f" in {delay:g} s" if delay else "")
        self._logger.warning("Failed; %s", words)
        if not await self._children.retry(f"{words}: {self.verdict().splitlines()[0]}", delay):
            return False
        self.steps = _fresh(self._pipeline)
        return True

    async def _step(self, step: StepRun) -> None:
        for need in step.step.needs:
            await self.steps[need].ended.wait()
        why_not = step.why_not(self.steps)
        try:
            if why_not is None:
                await self._run(step)
            await self._hand_over(step)
        except JobError as error:
            await self._try_to_hand_over(step)
            step.end("failed", str(error))
        else:
            step.conclude(why_not)
        level = self._logger.warning if step.became == "failed" else self._logger.info
        level("%s: %s", step.name, step.said or step.count())

    async def _run(self, step: StepRun) -> None:
        self._prepare(step)
        for words in step.without_metric(self.steps):
            self._logger.warning("%s: %s", step.name, words)
        await self._leave_lost(step)
        self._say_begin(step)
        await step.run(self._children)
        await self._read_outcomes(step)

    def _prepare(self, step: StepRun) -> None:
        needs = {need: self.steps[need].step.job for need in step.step.needs}
        inputs = inputs_of(self._pipeline.name, self._flow_run.id, needs, self._targets[step.step.job].job)
        step.prepare(self._values, self._targets, self.steps, inputs)

    async def _leave_lost(self, step: StepRun) -> None:
        """Take an earlier run for none whose outputs another step needs, and which are gone from the store."""
        taken = self._children.taken(step.branches, anew=step.step.always) if self._takers(step) else []
        if lost := await without_outputs(self._targets[step.step.job].job, taken):
            self._logger.warning("%s: the outputs of %d runs are gone from the store", step.name, len(lost))
            self._children.leave(lost)

    async def _try_to_hand_over(self, step: StepRun) -> None:
        """Hand over what there is: who runs for a failure, or cleans up, does without the rest."""
        with suppress(JobError):
            await self._hand_over(step)

    async def _hand_over(self, step: StepRun) -> None:
        job = self._targets[step.step.job].job
        await hand_over(self._pipeline.name, self._flow_run.id, step, job, self._takers(step))

    def _takers(self, step: StepRun) -> list[StepRun]:
        return [other for other in self.steps.values() if step.name in other.step.needs]

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


def _fresh(pipeline: Pipeline) -> dict[str, StepRun]:
    return {name: StepRun(name, step) for name, step in pipeline.steps.items()}
