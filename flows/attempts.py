"""The attempts of one run: what an earlier supervisor left is taken up, then one follows the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from prefect_jobs.flows.delivery import Delivery
from prefect_jobs.flows.history import close_orphans, may_have_begun, read_history, was_cancelled
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.log import RunLog, logger_name
from prefect_jobs.flows.plan import Plan
from prefect_jobs.flows.records import record
from prefect_jobs.flows.retries import Budget
from prefect_jobs.flows.states import retriable, run_state
from prefect_jobs.flows.supervise import Supervision, discarded, is_kept, tidy
from prefect_jobs.flows.sweep import discard_expired
from prefect_jobs.outcome import Outcome, Reason

Logger = logging.LoggerAdapter[logging.Logger]


class Attempts:
    """The attempts of one run, and the last one's outcome."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        self.plan = plan
        self.budget = budget
        self.ended = 0
        """The number of the last attempt that ended, or 0."""
        self.last: Outcome | None = None
        """How the last attempt ended; None, too, where one ended without an outcome."""
        self._begun: datetime | None = None
        self._task_runs: set[UUID] = set()
        self._is_taken_up = False
        self._had_container = False

    async def run(self, flow_run: FlowRun, logger: Logger) -> None:
        """Make attempts until one succeeds or no retry is left, and leave nothing behind."""
        plan = self.plan
        try:
            if await self._take_up(flow_run, logger):
                await self._make_all(logger)
        except BaseException:
            # Before an attempt looks after its container itself, there may be one that an earlier supervisor left.
            await tidy(discarded(plan.engine, plan.numbered(self.ended + 1)))
            raise
        finally:
            await tidy(plan.engine.release(plan.identity.run_id))
            if self._is_taken_up:
                # Prefect hears of a task run by an event: the last one of whoever was killed may have come late.
                await tidy(self._close_orphans())
            if plan.spec.keep_seconds:
                await tidy(discard_expired(plan.client, plan.engine, plan.identity.installation))

    async def _make_all(self, logger: Logger) -> None:
        if not self.budget.is_granted:
            await self.next()
            self._again(logger)
            return
        # A plain function: Prefect takes a bound method for one that always says no.
        again = attempts_of.with_options(
            retry_condition_fn=lambda *_: self._again(logger), **self.budget.task_options()
        )
        await cast("Awaitable[State[Any]]", again(self, return_state=True))

    async def _take_up(self, flow_run: FlowRun, logger: Logger) -> bool:
        """Go on where an earlier supervisor of this run was; whether there is an attempt left to make."""
        if not may_have_begun(flow_run):
            return True
        plan = self.plan
        history = await read_history(plan.client, plan.identity.run_id)
        if history.reported == 0 and flow_run.start_time is not None:
            self.budget.count_from(flow_run.start_time)
        self.ended = history.ended
        self._is_taken_up = True
        if orphans := await self._close_orphans():
            logger.info("Taking up the run of a supervisor that is gone: %d task runs closed", len(orphans))
        self._begun = max((orphan.start_time for orphan in orphans if orphan.start_time), default=datetime.now(UTC))
        # Its outcome is kept; what the earlier supervisor did not get to remove goes now.
        if history.attempts and not is_kept(plan.spec, history.attempts[-1]):
            await plan.engine.discard(plan.numbered(history.ended))
        for outcome in history.unreported:
            self.last = outcome
            self._had_container |= outcome.had_container
            if not self.budget.spend(outcome, outcome.ended).again:
                return False
        if history.unreported and (pause := self.budget.pause):
            logger.info("Attempt %d starts in %.3g s", self.ended + 1, pause)
            await asyncio.sleep(pause)
        return True

    async def _close_orphans(self) -> list[TaskRun]:
        return await close_orphans(self.plan.client, self.plan.identity.run_id, self._task_runs)

    def _again(self, logger: Logger) -> bool:
        """Whether another attempt follows the last one, which ended just now; says so in the log."""
        if self.last is None:
            return False
        verdict = self.budget.spend(self.last)
        if verdict.again:
            logger.info("Attempt %d follows: %s", self.last.attempt + 1, verdict.words)
        elif verdict.words:
            logger.info("No further attempt: %s", verdict.words)
        return verdict.again

    async def next(self) -> State[Any]:
        """Make the next attempt, as a task run of its own that says how it ended."""
        if (around := TaskRunContext.get()) is not None:
            self._task_runs.add(around.task_run.id)
        first, number = self.last is None, self.ended + 1
        self.last = None
        if not first and await was_cancelled(self.plan.client, self.plan.identity.run_id):
            return Cancelled(message="cancelled before its next attempt")
        named = attempt.with_options(task_run_name=f"attempt {number}")
        return await cast("Awaitable[State[Any]]", named(self, return_state=True))

    async def make(self, task_run_id: UUID) -> Outcome:
        """Make the attempt after those that ended before, and keep its outcome."""
        plan, logger = self.plan, cast("Logger", get_run_logger())
        self._task_runs.add(task_run_id)
        identity = plan.numbered(self.ended + 1)
        begun, self._begun = self._begun, None
        delivery = Delivery(plan.client, logger_name(identity.attempt), identity.run_id, task_run_id)
        log = RunLog(delivery, logger, plan.job.logging, plan.mask, taken_up=begun is not None)

        async def keep(outcome: Outcome) -> None:
            self.last = outcome
            await insist(lambda: record(outcome, plan.job.name, plan.infrastructure), "keep an outcome")

        async def cancelled() -> bool:
            try:
                return await was_cancelled(plan.client, identity.run_id)
            except ObjectNotFound:  # The run was deleted: there is nothing to keep its outcome with.
                self.last = Outcome(reason=Reason.CANCELLED, attempt=identity.attempt)
                return False

        async with delivery.open():
            supervision = Supervision(plan, identity, log, logger, keep, cancelled, begins=not self._had_container)
            outcome = await supervision.run(lambda: self.budget.seconds_left, begun)
        self._had_container |= outcome.had_container
        usage = outcome.usage()
        logger.info("Attempt %d ended%s: %s", identity.attempt, f" ({usage})" if usage else "", outcome.summary())
        self.ended = identity.attempt
        return outcome


def _never(*_: object) -> bool:
    return False


# Each attempt shows its own end. Prefect's number of retries is not 0, because Prefect then logs an empty traceback for
# a task that returns a failed state.
@task(name="attempt", cache_policy=NO_CACHE, persist_result=False, retries=1, retry_condition_fn=_never)
async def attempt(attempts: Attempts) -> State[Any]:
    """One container of a job run."""
    context, working = TaskRunContext.get(), asyncio.current_task()
    assert context is not None
    assert working is not None
    try:
        return run_state(await attempts.make(context.task_run.id))
    except asyncio.CancelledError:
        if attempts.last is None or attempts.last.reason is not Reason.CANCELLED:
            raise
        working.uncancel()
        return run_state(attempts.last)


@task(name="attempts", task_run_name="attempts", cache_policy=NO_CACHE, persist_result=False)
async def attempts_of(attempts: Attempts) -> State[Any]:
    """The attempts of a job run: Prefect runs this task again for each retry."""
    return retriable(await attempts.next())
