"""Handles of runs: start one, watch it, read its lines, cancel it, and learn how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.deployed import DeployedJob, DeployedPipeline
from prefect_jobs.deployments.both_ways import both_ways
from prefect_jobs.deployments.cancelling import ask, see_to_it
from prefect_jobs.deployments.kinds import KINDS, is_ours, kind_of, template_of
from prefect_jobs.deployments.printing import nothing, print_hint, print_log, print_state
from prefect_jobs.deployments.watch import all_logs, follow, read_run
from prefect_jobs.errors import MissingExtraError, NotFoundError, OverrideError
from prefect_jobs.flows.insisting import insist
from prefect_jobs.flows.records import outcomes
from prefect_jobs.flows.summary import table_of
from prefect_jobs.job import OVERRIDES, Job
from prefect_jobs.names import PIPELINE
from prefect_jobs.outcome import Outcome
from prefect_jobs.parameters import read_texts, resolve
from prefect_jobs.request import Request, container_spec, infrastructure_of, shape


class JobRun:
    """One run of a job or a pipeline. Every method is awaited in a running event loop and simply called in a script.

    Example:
        >>> run = job.run(MODEL_CLASS="forest")
        >>> run.watch()
        >>> run.outcome.exit_code
        0
    """

    def __init__(self, flow_run: FlowRun) -> None:
        self.id: UUID = flow_run.id
        self.name: str = flow_run.name
        self.flow_run = flow_run
        self.attempts: list[Outcome] = []
        """The outcomes of the attempts that have ended, as of the last look; those of a pipeline are its children's."""

    def __repr__(self) -> str:
        return f"JobRun({self.name!r}, {self.state!r}, id={str(self.id)!r})"

    @property
    def state(self) -> str:
        """The name of its Prefect state, as of the last look."""
        return self.flow_run.state.name or "Unknown" if self.flow_run.state else "Unknown"

    @property
    def is_pipeline(self) -> bool:
        """Whether it is a run of a pipeline."""
        return PIPELINE in self.flow_run.parameters

    @property
    def outcome(self) -> Outcome | None:
        """How its last attempt ended, as of the last look (`watch`, `wait` or `refresh`); None before that."""
        return self.attempts[-1] if self.attempts else None

    @property
    def exit_code(self) -> int:
        """What a command line should end with: the container's exit code, or 1 where the run ended otherwise."""
        state = self.flow_run.state
        if state is not None and state.is_completed():
            return 0
        if state is not None and state.is_cancelled():
            return 130
        return self.outcome.shell_code or 1 if self.outcome is not None else 1

    @both_ways
    async def refresh(self) -> JobRun:
        """Look again at its state and outcome."""
        async with get_client() as client:
            return await self._look(client)

    @both_ways
    async def wait(self) -> JobRun:
        """Wait until it has ended, whatever becomes of Prefect's API meanwhile.

        Raises:
            NotFoundError: somebody deleted the run.
            httpx.HTTPStatusError: the API refuses to show it, with a status of 400 to 499.
        """
        async with get_client() as client:
            await follow(client, self.flow_run, on_state=nothing, on_log=nothing)
            return await insist(lambda: self._look(client), "read a run's end")

    @both_ways
    async def watch(
        self,
        on_log: Callable[[Log], None] | None = None,
        on_state: Callable[[FlowRun], None] | None = None,
        on_hint: Callable[[str], None] | None = None,
    ) -> JobRun:
        """Show state and lines as they come, until it has ended; each of the arguments replaces the printing of some.

        ``on_hint`` gets what to do when a run waits and no worker is there to take it.

        Raises:
            NotFoundError, httpx.HTTPStatusError: as `wait`.
        """
        async with get_client() as client:
            tell = on_hint or print_hint
            await follow(client, self.flow_run, on_state or print_state, on_log or print_log, tell)
            return await insist(lambda: self._look(client), "read a run's end")

    @both_ways
    async def logs(self) -> list[Log]:
        """Its lines so far, in order; those of the container have the container's own timestamps."""
        async with get_client() as client:
            return [log async for log in all_logs(client, self.id)]

    @both_ways
    async def table(self) -> list[dict[str, Any]]:
        """A row for each run of a pipeline's steps, in their order; a job's run has none.

        Of a run that has ended: step, index, parameters, metric, outcome, seconds, run and link; a step without a run
        has a row with its outcome alone. Of a run that goes on, or was ended from outside: what was started, with step,
        run, state and link.
        """
        if not self.is_pipeline:
            return []
        async with get_client() as client:
            return await table_of(client, await read_run(client, self.id))

    @both_ways
    async def cancel(self, how: str = "JobRun.cancel") -> JobRun:
        """Ask for it to be cancelled. A run that has started is stopped by its worker, one that has not ends now.

        ``how`` is by what means, for the message of its state.

        Raises:
            NotFoundError: somebody deleted the run.
        """
        async with get_client() as client:
            await ask(client, self.flow_run, how)
            return await self._look(client)

    @both_ways
    async def end(self, tell: Callable[[str], None] = nothing, *, force: bool = False) -> JobRun:
        """Wait until a cancelled run has ended; where no worker stops its container in time, do it from here.

        ``tell`` gets what is being waited for. With ``force`` nobody is waited for, and the run ends Cancelled even
        where its container cannot be found from here.

        Raises:
            NotFoundError: somebody deleted the run.
        """
        async with get_client() as client:
            await see_to_it(client, self.flow_run, tell, force=force)
            return await insist(lambda: self._look(client), "read a run's end")

    async def _look(self, client: PrefectClient) -> JobRun:
        self.flow_run = await read_run(client, self.id)
        self.attempts = await outcomes(client, self.id)
        return self


@both_ways
async def start_run(
    job: str,
    parameters: dict[str, Any] | None = None,
    *,
    texts: dict[str, str] | None = None,
    run_name: str | None = None,
    run_tags: list[str] | None = None,
) -> JobRun:
    """Start a run of the deployment ``job/<job>``.

    ``parameters`` are typed parameters and overrides; ``texts`` are typed parameters as a person typed them, which are
    read by their type.

    Raises:
        NotFoundError: there is no such job, or no infrastructure of that name.
        OverrideError: a parameter or an override is wrong; the message names it.
        TemplateError: there is no such type of infrastructure.
        NotAllowedError: the infrastructure that it asks for does not allow the job.
    """
    async with get_client() as client:
        return await _start(client, await read_job(client, job), parameters, texts, run_name, run_tags)


@both_ways
async def start_pipeline(
    pipeline: str,
    parameters: dict[str, Any] | None = None,
    *,
    run_name: str | None = None,
    run_tags: list[str] | None = None,
) -> JobRun:
    """Start a run of the deployment ``pipeline/<pipeline>``.

    Raises:
        NotFoundError: there is no such pipeline.
        OverrideError: a parameter is wrong; the message names it.
    """
    async with get_client() as client:
        deployment = await read_template(client, f"{DeployedPipeline.kind}/{pipeline}")
        return await _start(client, deployment, parameters, None, run_name, run_tags)


@both_ways
async def start(
    reference: str,
    parameters: dict[str, Any] | None = None,
    *,
    texts: dict[str, str] | None = None,
    run_name: str | None = None,
    run_tags: list[str] | None = None,
) -> JobRun:
    """Start a run of a job or a pipeline, as a person names it (see `read_template`).

    Raises:
        NotFoundError, OverrideError, TemplateError, NotAllowedError: as `start_run`.
    """
    async with get_client() as client:
        return await _start(client, await read_template(client, reference), parameters, texts, run_name, run_tags)


async def _start(
    client: PrefectClient,
    deployment: DeploymentResponse,
    parameters: dict[str, Any] | None,
    texts: dict[str, str] | None,
    run_name: str | None,
    run_tags: list[str] | None,
) -> JobRun:
    template = template_of(deployment)
    owner = f"{kind_of(deployment.parameters)} {template.name!r}"
    given = {**(parameters or {}), **read_texts(template.parameters, texts or {}, owner)}
    if isinstance(template, Job):
        request = Request.parse(template, given)
        await _check_place(template, request)
        asked = {name: value for name, value in given.items() if name not in OVERRIDES} | request.overrides.as_form()
    elif overrides := sorted(given.keys() & set(OVERRIDES) - template.parameters.keys()):
        raise OverrideError(f"{owner} takes no override such as {overrides[0]!r}; its steps say what their jobs run")
    else:
        resolve(template.parameters, given, owner)
        asked = given
    try:
        flow_run = await client.create_flow_run_from_deployment(
            deployment.id, parameters=asked, name=run_name, tags=run_tags
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code == 409:
            raise OverrideError(f"{owner}: {error.response.json().get('detail', error)}") from error
        raise
    return JobRun(flow_run)


async def _check_place(job: Job, request: Request) -> None:
    """Hold another shape, or another infrastructure, against the block before anything starts."""
    overrides = request.overrides
    if overrides.shape is None and overrides.infrastructure is None:
        return
    # The worker may have what is not installed here, and read what this user may not.
    with suppress(MissingExtraError, PrefectHTTPStatusError):
        infrastructure = await load_infrastructure(infrastructure_of(job, overrides))
        chosen = shape(job, overrides, infrastructure.shapes, infrastructure.label)
        # Where an input leads is known where the run is looked after.
        seen = {"shape": chosen, "inputs": {}}
        infrastructure.check(container_spec(DeployedJob(template=job), request).model_copy(update=seen), job.name)


async def read_job(client: PrefectClient, name: str) -> DeploymentResponse:
    """The deployment of a job.

    Raises:
        NotFoundError: there is none of that name, or it is somebody else's.
    """
    return await read_template(client, f"{DeployedJob.kind}/{name}")


async def read_template(client: PrefectClient, reference: str) -> DeploymentResponse:
    """The deployment of a job or a pipeline: ``job/train``, ``pipeline/search``, or a name, which is a job's first.

    Raises:
        NotFoundError: there is none of that name, or it is somebody else's.
    """
    kind, slash, name = reference.partition("/")
    names = [reference] if slash else [f"{kind}/{reference}" for kind in KINDS]
    for full_name in names:
        try:
            deployment = await client.read_deployment_by_name(full_name)
        except ObjectNotFound:
            continue
        if not is_ours(deployment):
            raise NotFoundError(
                f"the deployment {full_name!r} was not made by prefect-jobs; 'prefect-jobs list' shows all jobs"
            )
        return deployment
    what = f"{kind} {name!r}" if slash else f"job or pipeline {reference!r}"
    raise NotFoundError(f"there is no {what}; 'prefect-jobs list' shows all, 'prefect-jobs apply' adds some")


async def find_run(client: PrefectClient, reference: str) -> JobRun:
    """A run by its id or its name; of several with one name, the newest.

    Raises:
        NotFoundError: there is none.
    """
    try:
        return JobRun(await client.read_flow_run(UUID(reference)))
    except ObjectNotFound:
        pass
    except ValueError:
        found = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(KINDS))),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[reference])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
        if found:
            return JobRun(found[0])
    raise NotFoundError(f"there is no run {reference!r}; 'prefect-jobs runs' shows the latest")
