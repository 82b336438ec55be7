"""Runs of jobs with a store, executed in this process: as processes with a folder, and in Docker with S3."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ran import Ran, deployed, start
from s3 import session_s3, unique

from prefect_jobs import Job
from prefect_jobs.blocks.object_store import ObjectStore

__all__ = ["start"]


@pytest.fixture(params=["process, folder", "docker, S3"])
def setting(request: pytest.FixtureRequest) -> str:
    """Where jobs run, and what their store is."""
    return str(request.param)


@pytest.fixture
def where(setting: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The infrastructure of a job, and the image that it needs there."""
    if setting.startswith("process"):
        return {"infrastructure": "process"}
    return {"infrastructure": "docker", "image": request.getfixturevalue("busybox")}


@pytest.fixture
def block(setting: str, tmp_path: Path) -> ObjectStore:
    """The store."""
    if setting.endswith("folder"):
        return ObjectStore(url=f"file://{tmp_path}/bucket", patience=5)
    return session_s3().block(unique(), patience=5)


@pytest.fixture
def bucket(block: ObjectStore) -> Path:
    """The folder in which the store's objects are in truth."""
    if block.url.startswith("file://"):
        return Path(block.url.removeprefix("file://"))
    return session_s3().folder / block.url.removeprefix("s3://")


@pytest.fixture
async def store(block: ObjectStore, prefect_api: str) -> str:
    """The name of the store, saved."""
    name = f"store-{uuid4().hex[:8]}"
    await block.save(name)  # type: ignore[misc]
    return name


@pytest.fixture
def deploy(where: dict[str, Any], store: str) -> Callable[..., Awaitable[Job]]:
    """Deploys a job with a script and the store."""

    async def make(script: str, **keys: Any) -> Job:
        command = ["sh", "-c", script]
        return await deployed(f"job-{uuid4().hex[:8]}", **{**where, "store": store, "command": command, **keys})

    return make


@pytest.fixture
def sh(deploy: Callable[..., Awaitable[Job]], start: Callable[..., Awaitable[Ran]]) -> Callable[..., Awaitable[Ran]]:
    """Runs a script as a job, once, with further keys of the job."""

    async def go(script: str, **keys: Any) -> Ran:
        return await start(await deploy(script, **keys))

    return go
