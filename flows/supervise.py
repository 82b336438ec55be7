"""One attempt from launch to removal: its lines, its timeouts, its end, whatever happens to the supervisor's task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from prefect_jobs.blocks.engine import Container, Engine, Tell
from prefect_jobs.errors import EngineUnavailable, ImageUnavailable, InfrastructureError
from prefect_jobs.flows.log import Mask, RunLog
from prefect_jobs.outcome import Outcome, Reason
from prefect_jobs.spec import ContainerSpec, Identity

# Pulls may take long, yet an engine or a registry that never answers must not hold a run for ever.
DEFAULT_START_TIMEOUT = 600.0
_TIDY_SECONDS = 15.0


async def supervise(
    engine: Engine,
    spec: ContainerSpec,
    identity: Identity,
    secrets: Mapping[str, str],
    log: RunLog,
    logger: logging.LoggerAdapter[logging.Logger],
    seconds_left: float | None,
) -> Outcome:
    """Run the container of an attempt and say how it ended.

    ``seconds_left`` is what remains of the run's total timeout. Whatever ends this call, the container does not
    outlive it; only the death of this process leaves it running, and then the next call attaches to it.
    """
    mask = Mask(secrets.values())
    if seconds_left == 0:
        return Outcome(reason=Reason.TIMED_OUT, attempt=identity.attempt, message="the total timeout has passed")
    waiting_for = ["the engine to start the container"]

    def tell(message: str) -> None:
        waiting_for[0] = message
        logger.info("%s", mask(message))

    start_timeout = _least(spec.start_timeout or DEFAULT_START_TIMEOUT, seconds_left)
    try:
        container = await _launch(engine, spec, identity, secrets, tell, start_timeout)
    except ImageUnavailable as error:
        return Outcome(reason=Reason.IMAGE_UNAVAILABLE, attempt=identity.attempt, message=mask(str(error)))
    except InfrastructureError as error:
        return Outcome(reason=Reason.UNSCHEDULABLE, attempt=identity.attempt, message=mask(str(error)))
    except TimeoutError:
        return Outcome(
            reason=Reason.UNSCHEDULABLE,
            attempt=identity.attempt,
            message=mask(f"it had not started after {start_timeout:g} s; the last that was tried: {waiting_for[0]}"),
        )
    try:
        outcome = await _follow(container, spec, log, _least(spec.attempt_timeout, seconds_left))
    except BaseException:
        # Cancelled, or the process is told to end: the container goes first, and its last lines are kept.
        logger.info("Stopping the container: SIGTERM, and SIGKILL after %g s", spec.grace_seconds)
        await container.stop(spec.grace_seconds)
        await log.follow(container)
        raise
    finally:
        await container.remove()
    tail = () if outcome.succeeded else log.tail()
    return outcome.model_copy(update={"message": mask(outcome.message), "tail": tail})


async def _launch(
    engine: Engine,
    spec: ContainerSpec,
    identity: Identity,
    secrets: Mapping[str, str],
    tell: Tell,
    seconds: float | None,
) -> Container:
    """Launch the container in time, or leave nothing of it."""
    try:
        async with asyncio.timeout(seconds):
            return await engine.launch(spec, identity, secrets, tell)
    except EngineUnavailable:
        raise
    except BaseException:
        # An engine that is away cannot be asked; what it may have made is found by its labels later.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIDY_SECONDS):
                await engine.discard(identity)
        raise


async def _follow(container: Container, spec: ContainerSpec, log: RunLog, seconds: float | None) -> Outcome:
    """Hand on the container's lines until it has ended, stopping it at its timeout."""
    following = asyncio.create_task(log.follow(container), name="prefect-jobs: log of a container")
    try:
        try:
            async with asyncio.timeout(seconds):
                outcome = await container.wait()
        except TimeoutError:
            await container.stop(spec.grace_seconds)
            outcome = await container.wait()
            outcome = outcome.model_copy(
                update={"reason": Reason.TIMED_OUT, "message": f"it ran longer than its timeout of {seconds:g} s"}
            )
        await following
        return outcome
    finally:
        following.cancel()


def _least(*limits: float | None) -> float | None:
    """The shortest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
