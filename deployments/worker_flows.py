"""From a flow run to the flow that its deployment names, without asking for the deployment each time."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from prefect_jobs.errors import TemplateError

# A deployment that changes has a new version; one that is deleted is noticed after this time.
_SECONDS = 30.0
_OURS = "prefect_jobs.flows."


class Flows:
    """The flows of deployments, by the version that a run was made from."""

    def __init__(self) -> None:
        self._known: dict[tuple[UUID | None, str | None], tuple[float, str]] = {}

    async def of(self, client: PrefectClient, flow_run: FlowRun) -> Flow[..., Any]:
        """The flow of a run.

        Raises:
            TemplateError: its deployment is gone, or names a flow that is none of this project's.
        """
        key = (flow_run.deployment_id, flow_run.deployment_version)
        read_at, entrypoint = self._known.get(key, (0.0, ""))
        if time.monotonic() - read_at > _SECONDS:
            entrypoint = await _entrypoint(client, flow_run)
            self._known = {k: v for k, v in self._known.items() if time.monotonic() - v[0] <= _SECONDS}
            self._known[key] = (time.monotonic(), entrypoint)
        if not entrypoint.startswith(_OURS):
            raise TemplateError(
                f"the run's deployment names the flow {entrypoint!r}, and a worker of type prefect-jobs runs jobs and "
                "pipelines of prefect-jobs only; give the deployment a work pool of another type, such as process"
            )
        module, _, name = entrypoint.rpartition(".")
        try:
            flow: Flow[..., Any] = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise TemplateError(
                f"this release has no flow {entrypoint!r}, which the run's deployment names: {error}; apply the job "
                "with the release that the worker has"
            ) from error
        return flow


async def _entrypoint(client: PrefectClient, flow_run: FlowRun) -> str:
    if flow_run.deployment_id is None:
        raise TemplateError("the run has no deployment, or it was deleted; start a run of a deployment that is there")
    try:
        deployment = await client.read_deployment(flow_run.deployment_id)
    except ObjectNotFound as error:
        raise TemplateError(
            f"the run's deployment {flow_run.deployment_id} was deleted before the run began; apply the job again"
        ) from error
    return deployment.entrypoint or ""
