"""The flow of a job run: check the request, run attempts, return the state that says how it ended."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, cast

from prefect import get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Failed

from prefect_jobs.blocks.loading import load_infrastructure, load_store
from prefect_jobs.blocks.store_access import access_to
from prefect_jobs.deployed import DeployedJob
from prefect_jobs.errors import JobError
from prefect_jobs.flows.attempts import Attempts, Logger
from prefect_jobs.flows.cancellation import NOTHING_LEFT, cancelled_message, heeding_cancellation
from prefect_jobs.flows.ending import Remains
from prefect_jobs.flows.entrypoints import Entrypoints
from prefect_jobs.flows.hearing import hearing
from prefect_jobs.flows.history import is_cancelled, may_have_begun
from prefect_jobs.flows.insisting import insist, run_now
from prefect_jobs.flows.installation import installation_of
from prefect_jobs.flows.plan import Plan
from prefect_jobs.flows.results import concluded
from prefect_jobs.flows.retries import Budget
from prefect_jobs.flows.secrets import read_secret
from prefect_jobs.flows.staging import AMBIENT
from prefect_jobs.flows.states import says_cancelled
from prefect_jobs.flows.supervise import tidy
from prefect_jobs.job import OVERRIDES, PLACE
from prefect_jobs.request import Request, container_spec, infrastructure_of, shape, total_timeout
from prefect_jobs.spec import ContainerSpec, Identity

FLOW_NAME = "job"
_REMAINS_SECONDS = 60.0


async def _run(parameters: dict[str, Any]) -> State[Any]:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    flow_run, logger = context.flow_run, cast("Logger", get_run_logger())
    try:
        deployed = DeployedJob.parse(parameters.pop("job", None), flow_run.deployment_version)
        job = deployed.template
        request = Request.parse(job, {name: value for name, value in parameters.items() if value is not None})
        where = infrastructure_of(job, request.overrides)
        infrastructure = await insist(partial(load_infrastructure, where), "read an infrastructure block")
        chosen = shape(job, request.overrides, infrastructure.shapes, infrastructure.label)
        spec = container_spec(deployed, request).model_copy(update={"shape": chosen})
        infrastructure.check(spec, job.name)
        store_block = AMBIENT
        if job.state is not None:
            store_block = await insist(partial(load_store, job.state.block), "read a store's block")
        secrets = {name: await read_secret(job, name, block) for name, block in spec.secrets.items()}
        if job.state is not None and job.state.credentials:
            access = access_to(store_block)
            spec, secrets = spec.model_copy(update={"env": {**access.env, **spec.env}}), {**access.secrets, **secrets}
        logger.info("Job %s, version %s, on %s%s", job.name, deployed.version, infrastructure.label, _described(spec))
        if changed := request.changed:
            logger.info("This run overrides %s", ", ".join(changed))
        budget = Budget(job.retry_policy, total_timeout(job, request.overrides))
        async with (
            infrastructure.engine() as engine,
            store_block.open() as store,
            get_client() as client,
            hearing() as cancellations,
            cancellations.bell(flow_run.id) as bell,
        ):
            if await is_cancelled(client, flow_run.id):
                await tidy(_leave_nothing(client, flow_run), spec.grace_seconds + _REMAINS_SECONDS)
                return Cancelled(message="cancelled before its container was started")
            identity = Identity(
                job=job.name,
                version=deployed.version,
                run_id=flow_run.id,
                run_name=flow_run.name,
                index=request.index,
                count=request.count,
                installation=await installation_of(client),
                supervisor=f"{socket.gethostname()}/{os.getpid()}",
            )
            plan = Plan(client, job, engine, infrastructure.label, spec, identity, secrets, store)
            attempts = Attempts(plan, budget)
            async with heeding_cancellation(client, flow_run.id, bell) as cancellation:
                await attempts.run(flow_run, logger)
            last = attempts.last
            # Whoever cancels may have stopped the container before this process heard of it.
            unsure = cancellation.seen or last is None or not last.succeeded
            if words := await _cancelled(client, flow_run, logger, ask=unsure, heard=cancellation.heard):
                return Cancelled(message=words)
            if last is not None:
                state = await concluded(job, flow_run.id, last, store_block, plan.staging(identity).lineage)
                # What is shown takes a moment, in which it may be cancelled; Prefect then takes no other end.
                words = await _cancelled(client, flow_run, logger, ask=cancellation.seen or bell.is_set(), heard=False)
                return Cancelled(message=words) if words else state
    except JobError as error:
        return Failed(message=str(error))
    except ObjectNotFound:
        logger.info("Run ended: %s", words := f"it was deleted; {NOTHING_LEFT}")
        return Cancelled(message=words)
    return Failed(message="the attempt ended without an outcome; its task run's log says why")


async def _cancelled(client: PrefectClient, flow_run: FlowRun, logger: Logger, *, ask: bool, heard: bool) -> str:
    """What to say of a run that a person has cancelled; the API is asked where that may be so."""
    if not ask and not heard:
        return ""
    state = (await run_now(client, flow_run.id)).state
    if not heard and not says_cancelled(state):
        return ""
    logger.info("Run ended: %s", words := cancelled_message(state))
    return words


async def _leave_nothing(client: PrefectClient, flow_run: FlowRun) -> None:
    """Stop and remove what an earlier supervisor of a run left."""
    if may_have_begun(flow_run):
        await Remains(flow_run).end(client)


def _described(spec: ContainerSpec) -> str:
    return "" if spec.image is None else f", image {spec.image}"


_FLOWS = Entrypoints(__name__, FLOW_NAME, _run, (*OVERRIDES, *PLACE), "Run one container job.")
flow_of, entrypoint, __getattr__ = _FLOWS.flow_of, _FLOWS.entrypoint, _FLOWS.named
