"""prefect-jobs: container jobs on Prefect. Any image, no Prefect inside it.

The ground floor is the domain: jobs, requests, outcomes, errors. It knows neither Prefect nor any engine and does no
input or output but reading a document. Blocks (``prefect_jobs.blocks``), flows (``prefect_jobs.flows``) and
deployments (``prefect_jobs.deployments``) stand above it, each importing only from below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_jobs.blocks.docker import Docker as Docker
    from prefect_jobs.blocks.object_store import ObjectStore as ObjectStore
    from prefect_jobs.blocks.process import Process as Process
    from prefect_jobs.deployments.apply import apply as apply
    from prefect_jobs.deployments.runs import JobRun as JobRun
    from prefect_jobs.document import read as read
    from prefect_jobs.errors import JobError as JobError
    from prefect_jobs.job import Concurrency as Concurrency
    from prefect_jobs.job import Job as Job
    from prefect_jobs.job import Logging as Logging
    from prefect_jobs.job import Retries as Retries
    from prefect_jobs.job import Schedule as Schedule
    from prefect_jobs.job import Timeouts as Timeouts
    from prefect_jobs.matrix import Matrix as Matrix
    from prefect_jobs.outcome import Outcome as Outcome
    from prefect_jobs.outcome import Reason as Reason
    from prefect_jobs.parameters import Parameter as Parameter
    from prefect_jobs.pipeline import Each as Each
    from prefect_jobs.pipeline import Pipeline as Pipeline
    from prefect_jobs.pipeline import PipelineRetries as PipelineRetries
    from prefect_jobs.pipeline import Select as Select
    from prefect_jobs.pipeline import Share as Share
    from prefect_jobs.pipeline import Step as Step
    from prefect_jobs.spec import Security as Security
    from prefect_jobs.spec import Shape as Shape

# Imported when first used: whoever only reads a template never waits for Prefect.
_HOMES = {
    "Concurrency": "job",
    "Docker": "blocks.docker",
    "Each": "pipeline",
    "Job": "job",
    "JobError": "errors",
    "JobRun": "deployments.runs",
    "Logging": "job",
    "Matrix": "matrix",
    "ObjectStore": "blocks.object_store",
    "Outcome": "outcome",
    "Parameter": "parameters",
    "Pipeline": "pipeline",
    "PipelineRetries": "pipeline",
    "Process": "blocks.process",
    "Reason": "outcome",
    "Retries": "job",
    "Schedule": "job",
    "Security": "spec",
    "Select": "pipeline",
    "Shape": "spec",
    "Share": "pipeline",
    "Step": "pipeline",
    "Timeouts": "job",
    "apply": "deployments.apply",
    "read": "document",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
