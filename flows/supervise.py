"""One attempt from launch to removal: its lines, its timeouts, its end, whatever happens to the supervisor's task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect_jobs.blocks.engine import Container, Engine, may_start
from prefect_jobs.blocks.files import NOTHING_STAGED, Staged
from prefect_jobs.blocks.spool import spool
from prefect_jobs.errors import ImageUnavailable, InfrastructureError, NoSuchObject, StoreError
from prefect_jobs.flows.log import RunLog
from prefect_jobs.flows.plan import Plan
from prefect_jobs.flows.start_limit import start_limit
from prefect_jobs.flows.successor import successor
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import ContainerSpec, Identity

STARTED: ContextVar[Callable[[int], None] | None] = ContextVar("prefect_jobs_started", default=None)
"""Who wants to know, within a run's context, that the container of an attempt has just started; not of one taken up."""

_logger = logging.getLogger("prefect_jobs.supervision")

# Pulls may take long, yet an engine or a registry that never answers must not hold a run for ever.
DEFAULT_START_TIMEOUT = 600.0
_TIDY_SECONDS = 15.0
# An engine that restarts is back within this time.
_REMOVAL_SECONDS = 120.0
_TOTAL = "the total timeout has passed"


class Supervision:
    """One attempt of a plan: where its lines go, where its outcome is kept, and who knows whether it was cancelled."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        log: RunLog,
        logger: logging.LoggerAdapter[logging.Logger],
        keep: Callable[[Outcome], Awaitable[None]],
        cancelled: Callable[[], Awaitable[bool]],
        *,
        begins: bool,
    ) -> None:
        self._plan = plan
        self._begins = begins
        self._spec = plan.spec_of(identity)
        self._staging = plan.staging(identity)
        self._identity = identity
        self._log = log
        self._logger = logger
        self._keep = keep
        self._cancelled = cancelled
        self._waiting_for = "the engine to start the container"

    async def run(self, seconds_left: Callable[[], float | None], taken_up: datetime | None = None) -> Outcome:
        """Run the container of the attempt, keep how it ended, remove it, and return the outcome.

        ``seconds_left`` tells what remains of the run's total timeout; ``taken_up`` is when an earlier supervisor
        began the attempt. The outcome is kept before the container is removed: whenever this process dies, either the
        container or its outcome is there for the next one. Whatever else ends this call, the container does not
        outlive it.
        """
        async with spool() as room:
            return await self._run(seconds_left, taken_up, room)

    async def _run(self, seconds_left: Callable[[], float | None], taken_up: datetime | None, room: Path) -> Outcome:
        begun = taken_up or datetime.now(UTC)
        try:
            launched = await self._staged_and_launched(seconds_left, room, taken_up=taken_up is not None)
        except asyncio.CancelledError:
            await tidy(self._keep_cancelled(None))
            raise
        if isinstance(launched, Outcome):
            await self._keep(launched)
            return launched
        if taken_up is None and (tell := STARTED.get()) is not None:
            tell(self._identity.attempt)
        try:
            # The earlier supervisor may have started it long ago.
            age = await launched.age() if taken_up else 0.0
            outcome = self._whole(await self._follow(launched, age, seconds_left()), begun)
            await self._log.finish()
            outcome = outcome.model_copy(update={"tail": () if outcome.succeeded else self._log.tail()})
            outcome = await self._with_what_it_left(launched, outcome, room)
            await self._keep(outcome)
        except BaseException:
            # Cancelled, or the process is told to end: the container goes first, and its last lines are kept.
            with successor(self._identity, self._spec.grace_seconds):
                await self._stop(launched, begun)
                await tidy(launched.remove(), _REMOVAL_SECONDS)
            raise
        if is_kept(self._spec, outcome):
            self._logger.info("Kept for a look, for %g s from its end: %s", self._spec.keep_seconds, launched.place)
        else:
            await tidy(launched.remove(), _REMOVAL_SECONDS)
        return outcome

    async def _staged_and_launched(
        self, seconds_left: Callable[[], float | None], room: Path, *, taken_up: bool
    ) -> Container | Outcome:
        """The container, with all that it is to find; one that runs already has it."""
        staged = NOTHING_STAGED
        if not taken_up or await self._plan.engine.container(self._identity).age() == 0:
            try:
                async with asyncio.timeout(seconds_left()):
                    staged = await self._staging.stage(room, self._tell, begins=self._begins)
            except NoSuchObject as error:
                return self._without_container(Reason.INPUT_UNAVAILABLE, str(error))
            except StoreError as error:
                return self._without_container(Reason.STORE_UNAVAILABLE, str(error))
            except TimeoutError:
                return self._without_container(Reason.TIMED_OUT, f"{_TOTAL}, while its inputs were on their way")
        return await self._launch(seconds_left(), staged, taken_up=taken_up)

    async def _with_what_it_left(self, container: Container, outcome: Outcome, room: Path) -> Outcome:
        """The outcome, when what the attempt left is kept; one that says so where it cannot be kept."""
        try:
            return await self._staging.keep(container, outcome, room, self._tell)
        except (StoreError, InfrastructureError) as error:
            if (
                outcome.reason is Reason.LOST
            ):  # Nothing is left of a container that is gone; another attempt may follow.
                return outcome
            words = f"{outcome.summary()}; what it left could not be kept: {self._plan.mask(str(error))}"
            words += await self._staging.rescue(container, room)
            return outcome.model_copy(update={"reason": Reason.STORE_UNAVAILABLE, "message": words})

    async def _launch(self, left: float | None, staged: Staged, *, taken_up: bool) -> Container | Outcome:
        """The container, launched in time; or an outcome, and nothing is left of it."""
        if left == 0:
            there = await self._left_behind() if taken_up else None
            return there or self._without_container(Reason.TIMED_OUT, _TOTAL)
        seconds = self._spec.start_timeout or DEFAULT_START_TIMEOUT
        late = left is not None and left < seconds
        try:
            try:
                async with asyncio.timeout(left) if late else start_limit(seconds):
                    plan = self._plan
                    return await plan.engine.launch(self._spec, self._identity, plan.secrets, self._tell, staged)
            except BaseException:
                await tidy(discarded(self._plan.engine, self._identity))
                raise
        except ImageUnavailable as error:
            return self._without_container(Reason.IMAGE_UNAVAILABLE, str(error))
        except InfrastructureError as error:
            return self._without_container(Reason.UNSCHEDULABLE, str(error))
        except TimeoutError:
            what = _TOTAL if late else f"it had not started after {seconds:g} s"
            return self._without_container(
                Reason.TIMED_OUT if late else Reason.UNSCHEDULABLE,
                f"{what}; the last that was tried: {self._waiting_for}",
            )

    async def _left_behind(self) -> Container | None:
        """The container that an earlier supervisor started; one that was never started goes."""
        container = self._plan.engine.container(self._identity)
        if await container.age() > 0:
            return container
        await tidy(container.remove())
        return None

    def _without_container(self, reason: Reason, message: str) -> Outcome:
        return Outcome(reason=reason, attempt=self._identity.attempt, message=self._plan.mask(message))

    def _whole(self, outcome: Outcome, begun: datetime) -> Outcome:
        """An outcome of the engine with what only the supervisor knows, and without secrets."""
        waited = None if outcome.started is None else max(0.0, (outcome.started - begun).total_seconds())
        return outcome.model_copy(
            update={"message": self._plan.mask(outcome.message), "waited_seconds": waited},
        )

    def _tell(self, message: str) -> None:
        self._waiting_for = message
        self._logger.info("%s", self._plan.mask(message))

    async def _follow(self, container: Container, age: float, left: float | None) -> Outcome:
        """Hand on the container's lines until it has ended, stopping it at its timeout or the run's.

        ``age`` is for how many seconds it has been running.
        """
        limit = self._spec.attempt_timeout
        seconds = _least(None if limit is None else max(0.0, limit - age), left)
        following = asyncio.create_task(self._log.follow(container), name="prefect-jobs: log of a container")
        try:
            try:
                async with asyncio.timeout(seconds):
                    outcome = await container.wait()
                # An earlier supervisor may have stopped it.
                ran_out = limit is not None and (outcome.seconds or 0.0) >= limit
                timed_out = ran_out and (container.told_to_stop or outcome.reason is Reason.KILLED)
            except TimeoutError:
                await container.stop(self._spec.grace_seconds)
                outcome = await container.wait()
                # While the engine was away, the container may have ended by itself and in time.
                timed_out = container.told_to_stop
            if timed_out:
                what = _TOTAL if seconds == left else f"it ran longer than its timeout of {limit:g} s"
                outcome = outcome.model_copy(update={"reason": Reason.TIMED_OUT, "message": what})
            try:
                await following
            except Exception as error:
                # How it ended is known, and counts more than lines that the engine cannot give.
                self._logger.error("The container's log could not be read to its end: %r", error)
            return outcome
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _stop(self, container: Container, begun: datetime) -> None:
        """Stop the container and keep its last lines; at the end of this process there is no time to insist."""
        self._logger.info("Stopping the container: SIGTERM, and SIGKILL after %g s", self._spec.grace_seconds)
        grace = self._spec.grace_seconds
        await tidy(persistently(container.stop, grace), grace + _TIDY_SECONDS)
        if not await tidy(self._last_lines(container)):
            self._logger.warning("The container's last lines are missing here: there was no time to read all of them")
        await tidy(self._keep_end(container, begun))

    async def _last_lines(self, container: Container) -> None:
        await self._log.follow(container)
        await self._log.finish()

    async def _keep_end(self, container: Container, begun: datetime) -> None:
        await self._keep_cancelled(self._whole(await container.wait(), begun))

    async def _keep_cancelled(self, ended: Outcome | None) -> None:
        """Keep that the attempt was cancelled, if a person asked for that; any other end may be taken up again."""
        if not await self._cancelled():
            return
        cancelled: dict[str, Any] = {"reason": Reason.CANCELLED, "message": "", "tail": ()}
        outcome = ended or Outcome(reason=Reason.CANCELLED, attempt=self._identity.attempt)
        await self._keep(outcome.model_copy(update=cancelled))


async def discarded(engine: Engine, identity: Identity) -> None:
    """Remove what an attempt left that did not get to start; nothing of a run that has become another's meanwhile."""
    await may_start()
    await engine.discard(identity)


def is_kept(spec: ContainerSpec, outcome: Outcome) -> bool:
    """Whether the container of an attempt that ended so stays for a look."""
    # What was never started has nothing to look at.
    return bool(spec.keep_seconds and outcome.exit_code and outcome.started and outcome.reason is not Reason.CANCELLED)


async def tidy(removal: Awaitable[object], seconds: float = _TIDY_SECONDS) -> bool:
    """Put something in order, and tell whether it is.

    Where it is not, what is left is swept later, and how the attempt ended still counts.
    """
    try:
        async with asyncio.timeout(seconds):
            await removal
        return True
    except TimeoutError:
        _logger.warning("Left for a sweep: no answer within %g s", seconds)
    except Exception as error:
        _logger.warning("Left for a sweep: %r", error)
    return False


async def persistently(stop: Callable[[float], Awaitable[None]], seconds: float) -> None:
    """Stop something within a time that whoever is told to end once more does not shorten."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await stop(max(0.0, deadline - loop.time()))
        except asyncio.CancelledError:
            if loop.time() >= deadline:
                raise


def _least(*limits: float | None) -> float | None:
    """The shortest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
