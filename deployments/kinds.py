"""The two kinds of templates, jobs and pipelines, and what each is in Prefect: a flow, a name, a hidden parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.client.schemas.responses import DeploymentResponse

from prefect_jobs.deployed import Deployed, DeployedJob, DeployedPipeline
from prefect_jobs.flows import job, pipeline
from prefect_jobs.job import Job
from prefect_jobs.pipeline import Pipeline

KINDS: dict[str, type[DeployedJob] | type[DeployedPipeline]] = {
    each.kind: each for each in (DeployedJob, DeployedPipeline)
}
"""What a deployment carries, by the name of its flow."""
ENTRYPOINTS: dict[str, Callable[..., str]] = {
    job.FLOW_NAME: job.entrypoint,
    pipeline.FLOW_NAME: pipeline.entrypoint,
}


def deployment_name(deployed: Deployed) -> str:
    """``job/train`` or ``pipeline/search``."""
    return f"{deployed.kind}/{deployed.template.name}"


def kind_of(parameters: dict[str, Any]) -> str | None:
    """Which kind of template a deployment or a run carries; None for what is somebody else's."""
    return next((kind for kind in KINDS if isinstance(parameters.get(kind), dict)), None)


def is_ours(deployment: DeploymentResponse) -> bool:
    """Whether a deployment of a flow of our name carries a template; somebody else may call a flow 'job' too."""
    return kind_of(deployment.parameters) is not None


def deployed_in(deployment: DeploymentResponse) -> DeployedJob | DeployedPipeline:
    """What a deployment carries.

    Raises:
        VersionError: this release does not read it.
    """
    kind = kind_of(deployment.parameters)
    assert kind is not None
    return KINDS[kind].parse(deployment.parameters[kind], deployment.version)


def template_of(deployment: DeploymentResponse) -> Job | Pipeline:
    """The template that a deployment carries."""
    return deployed_in(deployment).template
