"""The flow of a job run: check the request, run attempts, return the state that says how it ended.

Deployments name it with the job's typed parameters in brackets, ``prefect_jobs.flows.job.run_job[MODEL_CLASS,size]``,
because Prefect hands a flow only parameters that its signature has. `__getattr__` makes the flow of that signature.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Iterable
from functools import cache, partial
from typing import Any, cast
from uuid import UUID

from prefect import Flow, get_run_logger, task
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Cancelled, Failed

from prefect_jobs.blocks.engine import Engine
from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import JobError, NotFoundError
from prefect_jobs.flows.cancellation import cancelled_message, heeding_cancellation
from prefect_jobs.flows.delivery import Delivery
from prefect_jobs.flows.history import close_orphans, is_cancelled, read_history
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.installation import installation_of
from prefect_jobs.flows.log import RunLog, logger_name
from prefect_jobs.flows.mask import Mask
from prefect_jobs.flows.records import record
from prefect_jobs.flows.retries import Budget, Verdict
from prefect_jobs.flows.states import run_state
from prefect_jobs.flows.supervise import Supervision, tidy
from prefect_jobs.job import OVERRIDES, Job
from prefect_jobs.outcome import Outcome
from prefect_jobs.request import Request, container_spec, shape, total_timeout
from prefect_jobs.spec import ContainerSpec, Identity

FLOW_NAME = "job"


Logger = logging.LoggerAdapter[logging.Logger]


class Attempts:
    """The attempts of one run: what they share, and the last one's outcome."""

    def __init__(
        self,
        client: PrefectClient,
        job: Job,
        engine: Engine,
        infrastructure: str,
        spec: ContainerSpec,
        identity: Identity,
        secrets: dict[str, str],
        budget: Budget,
    ) -> None:
        self.client = client
        self.job = job
        self.engine = engine
        self.infrastructure = infrastructure
        self.spec = spec
        self.identity = identity
        self.secrets = secrets
        self.budget = budget
        self.ended = 0
        self.taken_up = False
        self.last: Outcome | None = None  # None, too, where an attempt ended without one.
        self.next: Verdict | None = None

    def numbered(self, number: int) -> Identity:
        """The identity of an attempt."""
        return self.identity.model_copy(update={"attempt": number})

    async def take_up(self, flow_run: FlowRun, logger: Logger) -> bool:
        """Go on where an earlier supervisor of this run was; whether there is an attempt left to make."""
        if flow_run.run_count <= 1:
            return True
        self.taken_up = True
        history = await read_history(self.client, self.identity.run_id)
        if history.reported == 0 and flow_run.start_time is not None:
            self.budget.count_from(flow_run.start_time)
        self.ended = history.ended
        if orphans := await close_orphans(self.client, self.identity.run_id):
            logger.info("Taking up the run of a supervisor that is gone: %d task runs closed", orphans)
        if not history.attempts:
            return True
        # Its outcome is kept; what the earlier supervisor did not get to remove goes now.
        await self.engine.discard(self.numbered(history.ended))
        for outcome in history.unreported:
            self.last = outcome
            self.next = self.budget.spend(outcome, outcome.ended)
            if not self.next.again:
                return False
        return True

    async def run(self, logger: Logger) -> None:
        """Make attempts, each as a task run of its own, until one succeeds or no retry is left."""
        while self.next is None or self.next.again:
            number = self.ended + 1
            if self.next is not None:
                logger.info("Attempt %d starts in %.3g s: %s", number, self.next.pause, self.next.words)
                await asyncio.sleep(self.next.pause)
            named = attempt.with_options(task_run_name=f"attempt {number}")
            await cast("Awaitable[State[Any]]", named(self, return_state=True))
            if self.ended < number or self.last is None:
                self.last = None
                return
            self.next = self.budget.spend(self.last)
        if self.next.words:
            logger.info("No further attempt: %s", self.next.words)

    async def make(self, task_run_id: UUID) -> Outcome:
        """Make the attempt after those that ended before, and keep its outcome."""
        logger = cast("Logger", get_run_logger())
        identity = self.numbered(self.ended + 1)
        delivery = Delivery(self.client, logger_name(identity.attempt), identity.run_id, task_run_id)
        mask = Mask(self.secrets.values())
        log = RunLog(delivery, logger, self.job.logging, mask, taken_up=self.taken_up)

        async def keep(outcome: Outcome) -> None:
            self.last = outcome
            await insist(lambda: record(outcome, self.job.name, self.infrastructure), "keep an outcome")

        async with delivery.open():
            supervision = Supervision(self.engine, self.spec, identity, self.secrets, log, logger, keep)
            outcome = await supervision.run(lambda: self.budget.seconds_left)
        took = "" if outcome.seconds is None else f" after {outcome.seconds:.1f} s"
        logger.info("Attempt %d ended%s: %s", identity.attempt, took, outcome.summary())
        self.ended, self.taken_up = identity.attempt, False
        return outcome


def _never(*_: object) -> bool:
    return False


# Attempts are retried by the run, so that each shows its own end. Prefect's number of retries is not 0, because Prefect
# then logs an empty traceback for a task that returns a failed state.
@task(name="container", cache_policy=NO_CACHE, persist_result=False, retries=1, retry_condition_fn=_never)
async def attempt(attempts: Attempts) -> State[Any]:
    """One container of a job run."""
    context = TaskRunContext.get()
    assert context is not None
    return run_state(await attempts.make(context.task_run.id))


async def _run(parameters: dict[str, Any]) -> State[Any]:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    flow_run, logger = context.flow_run, cast("Logger", get_run_logger())
    try:
        deployed = DeployedJob.parse(parameters.pop("job", None), flow_run.deployment_version)
        job = deployed.template
        request = Request.parse(job, {name: value for name, value in parameters.items() if value is not None})
        infrastructure = await load_infrastructure(request.overrides.infrastructure or job.infrastructure)
        chosen = shape(job, request.overrides, infrastructure.shapes, infrastructure.label)
        spec = container_spec(deployed, request).model_copy(update={"shape": chosen})
        infrastructure.check(spec, job.name)
        secrets = {name: await _secret(job, name, block) for name, block in spec.secrets.items()}
        logger.info("Job %s, version %s, on %s%s", job.name, deployed.version, infrastructure.label, _described(spec))
        if changed := request.changed:
            logger.info("This run overrides %s", ", ".join(changed))
        budget = Budget(job.retry_policy, total_timeout(job, request.overrides), seed=flow_run.id)
        async with infrastructure.engine() as engine, get_client() as client:
            if flow_run.run_count <= 1 and await is_cancelled(client, flow_run.id):
                return Cancelled(message="cancelled before its container was started")
            identity = Identity(
                job=job.name,
                version=deployed.version,
                run_id=flow_run.id,
                run_name=flow_run.name,
                installation=await installation_of(client),
            )
            attempts = Attempts(client, job, engine, infrastructure.label, spec, identity, secrets, budget)
            try:
                async with heeding_cancellation(client, flow_run.id) as cancellation:
                    if await attempts.take_up(flow_run, logger):
                        await attempts.run(logger)
                if cancellation.heard:
                    state = await insist(partial(client.read_flow_run, flow_run.id), "read a run")
                    return Cancelled(message=cancelled_message(state.state))
            except BaseException:
                # Before an attempt looks after its container itself, there may be one that an earlier supervisor left.
                await tidy(engine.discard(attempts.numbered(attempts.ended + 1)))
                raise
            finally:
                await tidy(engine.release(identity.run_id))
    except JobError as error:
        return Failed(message=str(error))
    if attempts.last is None:
        return Failed(message="the attempt ended without an outcome; its task run's log says why")
    return run_state(attempts.last)


def _described(spec: ContainerSpec) -> str:
    return "" if spec.image is None else f", image {spec.image}"


async def _secret(job: Job, name: str, block: str) -> str:
    try:
        secret = cast("Secret[Any]", await insist(partial(Secret.aload, block), "read a secret"))
        value = secret.get()
        return value if isinstance(value, str) else json.dumps(value)
    except ValueError as error:
        raise NotFoundError(
            f"job {job.name!r} takes {name} from the Prefect Secret block {block!r}, which does not exist: make it in "
            "the Prefect UI (Blocks, Secret)"
        ) from error


@cache
def flow_of(names: tuple[str, ...]) -> Flow[..., State[Any]]:
    """The flow whose signature has these typed parameters beside the template and the overrides."""

    async def run_job(**parameters: Any) -> State[Any]:
        return await _run(parameters)

    run_job.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("job", *names, *OVERRIDES)]
    )
    run_job.__doc__ = "Run one container job."
    # The server has checked the parameters against the deployment's schema, and the flow checks them against the job.
    made: Any = Flow(cast("Any", run_job), name=FLOW_NAME, validate_parameters=False, persist_result=False)
    return cast("Flow[..., State[Any]]", made)


def entrypoint(parameters: Iterable[str], earlier: str | None = None) -> str:
    """By which a deployment names the flow for these typed parameters.

    Those of its ``earlier`` entrypoint stay: a run that waits was started with them.
    """
    names = ",".join(dict.fromkeys([*parameters, *_names((earlier or "").removeprefix(f"{__name__}."))]))
    return f"{__name__}.run_job[{names}]" if names else f"{__name__}.run_job"


def _names(function: str) -> tuple[str, ...]:
    """The typed parameters in ``run_job[MODEL_CLASS,size]``."""
    if function.startswith("run_job[") and function.endswith("]"):
        return tuple(function.removeprefix("run_job[").removesuffix("]").split(","))
    return ()


def __getattr__(name: str) -> Flow[..., State[Any]]:
    if name == "run_job" or (name.startswith("run_job[") and name.endswith("]")):
        return flow_of(_names(name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
