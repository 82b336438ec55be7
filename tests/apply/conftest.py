"""Jobs by their keys, and the server on which they are applied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse

from prefect_jobs import Job
from prefect_jobs.deployments.runs import read_job


@pytest.fixture
def name() -> str:
    """A job's name that no other test has."""
    return f"job-{uuid4().hex[:8]}"


@pytest.fixture
def make(name: str) -> Callable[..., Job]:
    """The test's job with the keys given."""

    def job(**keys: Any) -> Job:
        return Job.model_validate({"name": name, "command": ["true"], **keys})

    return job


@pytest.fixture
def there(api: PrefectClient, name: str) -> Callable[[], Awaitable[DeploymentResponse]]:
    """The test's job as the server has it."""

    async def look() -> DeploymentResponse:
        return await read_job(api, name)

    return look
