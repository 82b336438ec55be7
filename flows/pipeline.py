"""The flow of a pipeline run: begin each step when it may, wait for all, and say how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from prefect import get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_jobs.deployed import DeployedPipeline
from prefect_jobs.errors import JobError
from prefect_jobs.flows.cancellation import cancelled_message, heeding_cancellation
from prefect_jobs.flows.children import Children, read_targets
from prefect_jobs.flows.conductor import Conductor
from prefect_jobs.flows.ends import Ends, ends
from prefect_jobs.flows.entrypoints import Entrypoints
from prefect_jobs.flows.hearing import hearing
from prefect_jobs.flows.history import is_cancelled
from prefect_jobs.flows.insisting import run_now
from prefect_jobs.flows.states import says_cancelled
from prefect_jobs.names import PIPELINE
from prefect_jobs.parameters import resolve

if TYPE_CHECKING:
    from prefect_jobs.flows.attempts import Logger

FLOW_NAME = PIPELINE


async def _run(parameters: dict[str, Any]) -> State[Any]:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    flow_run, logger = context.flow_run, cast("Logger", get_run_logger())
    try:
        async with (
            get_client() as client,
            hearing() as cancellations,
            cancellations.bell(flow_run.id) as bell,
            ends() as ended,
        ):
            conductor, version = await _conductor(client, flow_run, parameters, ended, logger)
            conductor.check()
            logger.info("Pipeline %s, version %s: %s", conductor.name, version, ", ".join(conductor.steps))
            there = await conductor.recall()
            if await is_cancelled(client, flow_run.id):
                words = await conductor.cancel()
                return Cancelled(message=f"cancelled before its steps were begun; {words}")
            if there:
                logger.info("Taken up: %d runs of its steps are there already", there)
            async with heeding_cancellation(client, flow_run.id, bell, worker_seconds=0.0) as cancellation:
                await conductor.run()
            state = await _state_now(client, flow_run)
            is_over = cancellation.heard or state is None or says_cancelled(state)
            if is_over:
                words = cancelled_message(state, await conductor.cancel())
                logger.info("Run ended: %s", words)
            if state is not None:
                await conductor.summarize()
            if is_over:
                return Cancelled(message=words)
            words = conductor.verdict()
            return Failed(message=words) if conductor.is_failed else Completed(message=words)
    except JobError as error:
        return Failed(message=str(error))


async def clean_up(client: PrefectClient, flow_run: FlowRun, ended: Ends) -> str:
    """Cancel what a cancelled run has started and that nobody looks after, and run its steps with ``always``.

    Table and picture are kept as of any other run. Gives what there is to say of it in its state.

    Raises:
        JobError: its template cannot be read, or its jobs are not there any more.
    """
    logger = cast("Logger", flow_run_logger(flow_run))
    conductor, _ = await _conductor(client, flow_run, flow_run.parameters, ended, logger)
    await conductor.recall_anothers()
    words = await conductor.cancel()
    logger.info("Run ended: %s", cancelled_message(flow_run.state, words))
    await conductor.summarize()
    return words


async def _conductor(
    client: PrefectClient, flow_run: FlowRun, parameters: Mapping[str, Any], ended: Ends, logger: Logger
) -> tuple[Conductor, str]:
    """Who runs the steps of a pipeline's run with its parameters, and the version of the pipeline.

    Raises:
        JobError: its template cannot be read, or its jobs are not there any more.
    """
    deployed = DeployedPipeline.parse(parameters.get(PIPELINE), flow_run.deployment_version)
    pipeline = deployed.template
    given = {name: value for name, value in parameters.items() if name != PIPELINE and value is not None}
    values = resolve(pipeline.parameters, given, f"pipeline {pipeline.name!r}")
    targets = await read_targets(client, pipeline.jobs)
    children = Children(client, flow_run, pipeline.name, targets, ended)
    return Conductor(client, flow_run, pipeline, values, targets, children, logger), deployed.version


async def _state_now(client: PrefectClient, flow_run: FlowRun) -> State[Any] | None:
    """The state of the run; None where it was deleted."""
    try:
        return (await run_now(client, flow_run.id)).state
    except ObjectNotFound:
        return None


_FLOWS = Entrypoints(__name__, FLOW_NAME, _run, (), "Run the steps of a pipeline.")
flow_of, entrypoint, __getattr__ = _FLOWS.flow_of, _FLOWS.entrypoint, _FLOWS.named
