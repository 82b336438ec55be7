"""Jobs on the session's server, and deployments there that are not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient

from prefect_jobs import Job
from prefect_jobs.flows.job import FLOW_NAME


@pytest.fixture
def name() -> str:
    """A job's name that no other test has."""
    return f"job-{uuid4().hex[:8]}"


@pytest.fixture
async def greet(prefect_api: str, name: str) -> Job:
    """An applied job with a parameter of each kind that a person may mistype; no worker takes its runs."""
    job = Job.model_validate(
        {
            "name": name,
            "command": ["echo"],
            "parameters": {
                "who": {"default": "world"},
                # In the order in which every database gives them back.
                "names": {"type": "list", "default": []},
                "times": {"type": "integer", "default": 1},
            },
        }
    )
    await job.apply(work_pool=None)
    return job


@pytest.fixture
async def foreign(api: PrefectClient, name: str) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Makes a deployment ``job/<name>`` as somebody else would, whose own flow is called 'job' too."""
    made = []

    async def make(**parameters: object) -> str:
        flow = await api.create_flow_from_name(FLOW_NAME)
        made.append(await api.create_deployment(flow_id=flow, name=name, parameters=parameters, version="1"))
        return name

    yield make
    for each in made:
        await api.delete_deployment(each)
