"""A run of a pipeline, and what a test asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from reach import until

from prefect_jobs import JobRun


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

    async def until(self, ask: Callable[[list[FlowRun]], bool], what: str, seconds: float = 60) -> list[FlowRun]:
        """Its children, as soon as they are so."""

        async def is_so() -> bool:
            return ask(await self.children())

        await until(is_so, seconds, what)
        return await self.children()

    async def said(self) -> list[str]:
        """What its flow said."""
        return [log.message for log in await self.run.logs() if log.name == "prefect.flow_runs"]

    async def artifacts(self) -> list[Artifact]:
        """Its artifacts, the oldest first."""
        # The client always sends a filter for task runs, which leaves out what belongs to none.
        asked = {"artifacts": {"flow_run_id": {"any_": [str(self.run.id)]}, "type": {"any_": ["table", "markdown"]}}}
        async with get_client() as client:
            response = await client.request("POST", "/artifacts/filter", json={**asked, "sort": "ID_DESC"})
        found = [Artifact.model_validate(each) for each in response.json()]
        return sorted(found, key=lambda artifact: str(artifact.created))
