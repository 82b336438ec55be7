"""One step of a pipeline's run: whether it begins, its branches, and what became of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from prefect_jobs.errors import StepError
from prefect_jobs.flows.branches import Branch, branches
from prefect_jobs.flows.children import Children, Target
from prefect_jobs.pipeline import Became, Share, Step, best_parameter, step_in
from prefect_jobs.references import part_of
from prefect_jobs.selection import Choice, best_of, what_is_wrong

_NAMED = 3


class StepRun:
    """A step as it goes."""

    def __init__(self, name: str, step: Step) -> None:
        self.name = name
        self.step = step
        self.branches: list[Branch] = []
        self.became: Became | None = None
        self.said = ""
        """Why it failed, or was not begun."""
        self.choice: Choice | None = None
        """The best run of the step that it selects from."""
        self.ended = asyncio.Event()

    @property
    def is_done(self) -> bool:
        """Whether what needs it may begin: it succeeded, or may fail."""
        return self.became == "succeeded" or (self.became == "failed" and self.step.on_failure == "continue")

    @property
    def is_fault(self) -> bool:
        """Whether the pipeline fails by it."""
        return self.became == "failed" and not self.is_done

    @property
    def why(self) -> str:
        """Why it failed, or was not begun, with its name."""
        return f"step {self.name!r}: {self.said}" if self.said else ""

    @property
    def is_begun(self) -> bool:
        """Whether a run of it was started."""
        return any(branch.run_id is not None for branch in self.branches)

    @property
    def result(self) -> Any:
        """What its only run left in result.json."""
        return self.branches[0].result if self.branches else None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it goes on and nothing more of it would be begun."""
        going = any(branch.run_id is not None and not branch.ended for branch in self.branches)
        return not going and (all(branch.ended for branch in self.branches) or self._has_failed())

    def forget(self) -> None:
        """Have no branches, as before it was begun."""
        self.branches, self.choice = [], None

    def end(self, became: Became, said: str = "") -> None:
        """Note what became of it, and why."""
        self.became, self.said = became, said
        self.ended.set()

    def count(self) -> str:
        """How far it is: ``37 of 200 done, 1 failed, 4 running``."""
        done = sum(branch.ended for branch in self.branches)
        failed = sum(branch.failed for branch in self.branches)
        running = sum(branch.run_id is not None and not branch.ended for branch in self.branches)
        parts = [f"{done} of {len(self.branches)} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{running} running"] if running else []
        return ", ".join(parts)

    def why_not(self, others: Mapping[str, StepRun]) -> str | None:
        """Why it does not begin now that all that it needs has ended; None where it does."""
        if self.step.always and not self.step.if_:
            return None
        for need, wanted in self.step.if_.items():
            if (became := others[need].became) != wanted:
                return f"not begun, for {need} {_was(became)} and not {wanted}"
        for need in self.step.needs:
            if need not in self.step.if_ and not others[need].is_done and not self.step.always:
                return f"not begun, for it needs {need}, which {_was(others[need].became)}"
        return None

    # -- at work

    def prepare(
        self,
        parameters: Mapping[str, Any],
        targets: Mapping[str, Target],
        others: Mapping[str, StepRun],
        inputs: dict[str, str],
    ) -> None:
        """Know its branches.

        Raises:
            StepError: what it takes from the steps before it is not there, or its job does not take it.
        """
        self.choice = self._choose(others)
        value_of = self._values(parameters, targets, others)
        job = targets[self.step.job].job
        self.branches = branches(self.name, self.step, job, value_of, lambda name: others[name].result, inputs)

    async def run(self, children: Children) -> None:
        """Run its branches, so many at once, until all have ended or too many have failed."""
        gate = asyncio.Semaphore(self.step.at_once or len(self.branches) or 1)
        anew = self.step.always

        async def one(branch: Branch) -> None:
            async with gate:
                await children.run(branch, self.step.job, self._has_failed, anew=anew)

        async with asyncio.TaskGroup() as group:
            for branch in self.branches:
                group.create_task(one(branch))

    def conclude(self, why_not: str | None = None) -> None:
        """Say what became of it; ``why_not`` is why it was not begun."""
        if why_not is not None:
            self.end("skipped", why_not)
            return
        failed = [branch for branch in self.branches if branch.failed]
        share = self.step.on_failure
        if not failed or (isinstance(share, Share) and not self._has_failed()):
            self.end("succeeded")
            return
        first = failed[0]
        if self.step.is_many:
            left = sum(not branch.ended for branch in self.branches)
            words = f"{len(failed)} of {len(self.branches)} runs failed"
            words += f" and {left} were not begun" if left else ""
            words += f", and {share.succeed_at_least:.0%} must succeed" if isinstance(share, Share) else ""
            words += f"; the first is {first.run_name or first.index}" + (f" ({first.shown})" if first.varies else "")
            words += f": {first.message or first.became}"
        else:
            words = f"its run {first.run_name or ''} ended {first.state}: {first.message or first.became}"
        self.end("failed", words)

    def _has_failed(self) -> bool:
        """Whether no further branch is begun: more have failed than may."""
        failed = sum(branch.failed for branch in self.branches)
        match self.step.on_failure:
            case "continue":
                return False
            case Share(succeed_at_least=share):
                # 0.9 of 10 is 9, whatever a float makes of it.
                return failed > len(self.branches) - math.ceil(share * len(self.branches) - 1e-9)
            case _:
                return failed > 0

    # -- what it takes from the steps before it

    def _choose(self, others: Mapping[str, StepRun]) -> Choice | None:
        """The best run that it selects.

        Raises:
            StepError: no run of that step has the number; the message says what they have.
        """
        select = self.step.select
        if select is None:
            return None
        candidates = [branch for branch in others[select.from_].branches if branch.succeeded]
        choice = best_of(((each.index, each.result) for each in candidates), select.metric, select.mode)
        if choice is not None:
            return choice
        wrong = [f"run {each.index} {what_is_wrong(each.result, select.metric)}" for each in candidates[:_NAMED]]
        wrong += [f"and {len(candidates) - _NAMED} more"] if len(candidates) > _NAMED else []
        words = "; ".join(wrong) or "none of them succeeded"
        raise StepError(f"select: no run of step {select.from_!r} has a number at {select.metric!r}: {words}")

    def without_metric(self, others: Mapping[str, StepRun]) -> list[str]:
        """The runs that succeeded and could not be compared, and why."""
        if (select := self.step.select) is None:
            return []
        candidates = [branch for branch in others[select.from_].branches if branch.succeeded]
        compared = {each.index for each in candidates if best_of([(0, each.result)], select.metric, select.mode)}
        return [
            f"run {each.index} of {select.from_} {what_is_wrong(each.result, select.metric)}"
            for each in candidates
            if each.index not in compared
        ]

    def best(self, others: Mapping[str, StepRun]) -> Branch | None:
        """The run that it has selected."""
        if self.choice is None or self.step.select is None:
            return None
        return others[self.step.select.from_].branches[self.choice.index]

    def _values(
        self, parameters: Mapping[str, Any], targets: Mapping[str, Target], others: Mapping[str, StepRun]
    ) -> Callable[[str], Any]:
        """What a reference in the step stands for."""
        best = self.best(others)

        def value_of(name: str) -> Any:
            if name in parameters:
                return parameters[name]
            if best is not None and self.choice is not None:
                if (parameter := best_parameter(name)) is not None:
                    return best.parameters[parameter]
                if name in ("best.metric", "best.index"):
                    return self.choice.metric if name == "best.metric" else self.choice.index
                if name == "best.outputs":
                    return _outputs(best)
            if (found := step_in(name, {need: others[need].step for need in self.step.needs})) is None:
                raise KeyError(name)
            step, key = found
            try:
                return others[step].result if key is None else part_of(others[step].result, key)
            except LookupError:
                raise StepError(
                    f"{{{{ {name} }}}}: step {step!r} {what_is_wrong(others[step].result, key or '')}"
                ) from None

        return value_of


def _outputs(branch: Branch) -> str:
    if branch.outcome is None or branch.outcome.outputs is None:
        raise StepError(
            f"{{{{ best.outputs }}}}: run {branch.run_name} left no outputs in a store; give its job a store"
        )
    return branch.outcome.outputs


def _was(became: Became | None) -> str:
    return "was skipped" if became == "skipped" else str(became)


def run_ids(branches: list[Branch]) -> list[UUID]:
    """The runs of branches that were begun."""
    return [branch.run_id for branch in branches if branch.run_id is not None]
