"""Pipelines and their jobs, deployed for one worker of this project's type, which serves all tests of the session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from pipelines import There

from prefect_jobs import Pipeline, apply
from prefect_jobs.document import Document, load_document

Start = Callable[..., Awaitable[There]]


@pytest.fixture
def mark() -> str:
    """What the names of a test's jobs and pipeline end with."""
    return uuid4().hex[:8]


@pytest.fixture
def pool(mark: str) -> str:
    """The name of a work pool of the test's own."""
    return f"pool-{mark}"


@pytest.fixture
def deploy(served: str, mark: str) -> Callable[[str], Awaitable[Pipeline]]:
    """Deploys a document with the pipeline ``p-MARK``; ``MARK`` in it stands for the test's mark."""

    async def make(text: str) -> Pipeline:
        document: Document = load_document(text.replace("MARK", mark))
        await apply(document.jobs, document.pipelines, work_pool=served)
        return document.pipelines[0]

    return make


@pytest.fixture
def start(deploy: Callable[[str], Awaitable[Pipeline]]) -> Start:
    """Deploys a document and starts a run of its pipeline."""

    async def go(text: str, **parameters: Any) -> There:
        return There(await (await deploy(text)).run(**parameters))

    return go


@pytest.fixture
def run(start: Start) -> Start:
    """Deploys a document, runs its pipeline, and waits for the end."""

    async def go(text: str, **parameters: Any) -> There:
        return await (await start(text, **parameters)).ended()

    return go
