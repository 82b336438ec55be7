"""Runs of jobs, executed in this process against the real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from ran import Ran, deployed, start

from prefect_jobs import Job

__all__ = ["start"]


@pytest.fixture
def deploy(prefect_api: str) -> Callable[..., Awaitable[Job]]:
    """Deploys a job whose name no other test has."""

    async def make(**keys: Any) -> Job:
        return await deployed(f"job-{uuid4().hex[:8]}", **keys)

    return make


@pytest.fixture
def sh(deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]]) -> Callable[..., Awaitable[Ran]]:
    """Runs a script as a job, once, with further keys of the job."""

    async def go(script: str, **keys: Any) -> Ran:
        return await start(await deploy(command=["sh", "-c", script], **keys))

    return go
