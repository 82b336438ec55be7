"""Pipelines and their jobs, deployed for one worker of this project's type, which serves all tests of the session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort

from prefect_jobs import JobRun, Pipeline, apply
from prefect_jobs.document import Document, load_document


@dataclass(frozen=True)
class There:
    """A run of a pipeline, and what a test asks of it."""

    run: JobRun

    async def ended(self, seconds: float = 180) -> There:
        """It, as soon as it has ended."""
        async with asyncio.timeout(seconds):
            await self.run.wait()
        return self

    @property
    def state(self) -> str:
        """The name of its state."""
        return self.run.state

    @property
    def message(self) -> str:
        """The message of its state."""
        state = self.run.flow_run.state
        return (state.message or "") if state else ""

    async def children(self) -> list[FlowRun]:
        """The runs of its steps, in the order in which they were made."""
        chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[self.run.id]))
        found: list[FlowRun] = []
        async with get_client() as client:
            while True:
                page = await client.read_flow_runs(
                    flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=200, offset=len(found)
                )
                found += page
                if len(page) < 200:
                    break
        return sorted(found, key=lambda run: run.created)  # type: ignore[arg-type, return-value]

    async def of(self, step: str) -> list[FlowRun]:
        """The runs of one step, in their order."""
        found = [child for child in await self.children() if f"step:{step}" in child.tags]
        return sorted(found, key=lambda child: child.parameters.get("index", 0))

    async def said(self) -> list[str]:
        """What its flow said."""
        return [log.message for log in await self.run.logs() if log.name == "prefect.flow_runs"]

    async def artifacts(self) -> list[Artifact]:
        """Its artifacts, the oldest first."""
        async with get_client() as client:
            found = await client.read_artifacts(
                artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.run.id])),
                flow_run_filter=FlowRunFilter(),
                task_run_filter=TaskRunFilter(),
                sort=ArtifactSort.CREATED_DESC,
                limit=20,
            )
        return found[::-1]


Start = Callable[..., Awaitable[There]]


@pytest.fixture
def mark() -> str:
    """What the names of a test's jobs and pipeline end with."""
    return uuid4().hex[:8]


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
