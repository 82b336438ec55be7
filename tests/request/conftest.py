"""Makers of jobs and of what a run makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prefect_jobs.deployed import DeployedJob
from prefect_jobs.job import Job
from prefect_jobs.request import Request, container_spec
from prefect_jobs.spec import ContainerSpec


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """A job of the keys given, as a document would have them."""

    def make(**keys: Any) -> Job:
        return Job.model_validate({"name": "a", "image": "x", **keys})

    return make


@pytest.fixture
def spec_of() -> Callable[..., ContainerSpec]:
    """The container that a run with these parameters and overrides makes of a job."""

    def make(job: Job, **given: Any) -> ContainerSpec:
        return container_spec(DeployedJob(template=job), Request.parse(job, given))

    return make
