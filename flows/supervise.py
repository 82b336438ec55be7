"""One attempt from launch to removal: its lines, its timeouts, its end, whatever happens to the supervisor's task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from prefect_jobs.blocks.engine import Container, Engine, Tell
from prefect_jobs.errors import EngineUnavailable, ImageUnavailable, InfrastructureError
from prefect_jobs.flows.log import RunLog
from prefect_jobs.flows.mask import Mask
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import ContainerSpec, Identity

# Pulls may take long, yet an engine or a registry that never answers must not hold a run for ever.
DEFAULT_START_TIMEOUT = 600.0
_TIDY_SECONDS = 15.0
# An engine that restarts is back within this time.
_REMOVAL_SECONDS = 120.0
_TOTAL = "the total timeout has passed"


class Supervision:
    """What one attempt needs: its container's specification, where its lines go, and where its outcome is kept."""

    def __init__(
        self,
        engine: Engine,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        log: RunLog,
        logger: logging.LoggerAdapter[logging.Logger],
        keep: Callable[[Outcome], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._identity = identity
        self._secrets = secrets
        self._log = log
        self._logger = logger
        self._keep = keep
        self._mask = Mask(secrets.values())
        self._waiting_for = "the engine to start the container"

    async def run(self, seconds_left: Callable[[], float | None]) -> Outcome:
        """Run the container of the attempt, keep how it ended, remove it, and return the outcome.

        ``seconds_left`` tells what remains of the run's total timeout. The outcome is kept before the container is
        removed: whenever this process dies, either the container or its outcome is there for the next one. Whatever
        else ends this call, the container does not outlive it.
        """
        left = seconds_left()
        if left == 0:
            return await self._kept(Reason.TIMED_OUT, _TOTAL)
        start_timeout = _least(self._spec.start_timeout or DEFAULT_START_TIMEOUT, left)
        try:
            container = await self._launch(start_timeout)
        except ImageUnavailable as error:
            return await self._kept(Reason.IMAGE_UNAVAILABLE, str(error))
        except InfrastructureError as error:
            return await self._kept(Reason.UNSCHEDULABLE, str(error))
        except TimeoutError:
            late = left is not None and start_timeout == left
            what = _TOTAL if late else f"it had not started after {start_timeout:g} s"
            return await self._kept(
                Reason.TIMED_OUT if late else Reason.UNSCHEDULABLE,
                f"{what}; the last that was tried: {self._waiting_for}",
            )
        try:
            outcome = await self._follow(container, seconds_left())
            await self._log.finish()
            tail = () if outcome.succeeded else self._log.tail()
            outcome = outcome.model_copy(update={"message": self._mask(outcome.message), "tail": tail})
            await self._keep(outcome)
        except BaseException:
            # Cancelled, or the process is told to end: the container goes first, and its last lines are kept.
            await self._stop(container)
            raise
        finally:
            await tidy(container.remove(), _REMOVAL_SECONDS)
        return outcome

    async def _kept(self, reason: Reason, message: str) -> Outcome:
        """Keep the outcome of an attempt that has no container."""
        outcome = Outcome(reason=reason, attempt=self._identity.attempt, message=self._mask(message))
        await self._keep(outcome)
        return outcome

    async def _launch(self, seconds: float | None) -> Container:
        """Launch the container in time, or leave nothing of it."""
        tell: Tell = self._tell
        try:
            async with asyncio.timeout(seconds):
                return await self._engine.launch(self._spec, self._identity, self._secrets, tell)
        except EngineUnavailable:
            raise
        except BaseException:
            await tidy(self._engine.discard(self._identity))
            raise

    def _tell(self, message: str) -> None:
        self._waiting_for = message
        self._logger.info("%s", self._mask(message))

    async def _follow(self, container: Container, left: float | None) -> Outcome:
        """Hand on the container's lines until it has ended, stopping it at its timeout or the run's."""
        seconds = _least(self._spec.attempt_timeout, left)
        following = asyncio.create_task(self._log.follow(container), name="prefect-jobs: log of a container")
        try:
            try:
                async with asyncio.timeout(seconds):
                    outcome = await container.wait()
            except TimeoutError:
                await container.stop(self._spec.grace_seconds)
                outcome = await container.wait()
                # While the engine was away, the container may have ended by itself and in time.
                if outcome.seconds is None or seconds is None or outcome.seconds >= seconds:
                    what = _TOTAL if seconds == left else f"it ran longer than its timeout of {seconds:g} s"
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

    async def _stop(self, container: Container) -> None:
        """Stop the container and keep its last lines; at the end of this process there is no time to insist."""
        self._logger.info("Stopping the container: SIGTERM, and SIGKILL after %g s", self._spec.grace_seconds)
        await tidy(container.stop(self._spec.grace_seconds), self._spec.grace_seconds + _TIDY_SECONDS)
        await tidy(self._last_lines(container))

    async def _last_lines(self, container: Container) -> None:
        await self._log.follow(container)
        await self._log.finish()


async def tidy(removal: Awaitable[None], seconds: float = _TIDY_SECONDS) -> None:
    """Put something in order; an engine that is away cannot be asked, and what is left is swept later."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await removal


def _least(*limits: float | None) -> float | None:
    """The shortest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
