"""Runs job runs as a worker of the type prefect-jobs does: side by side, in an event loop of their own thread."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.utilities.engine import propose_state

from prefect_jobs import JobRun
from prefect_jobs.blocks.clock import clock
from prefect_jobs.deployments.worker_owner import owner_of, taken_by
from prefect_jobs.deployments.worker_runs import Runs


class Ours:
    """The part of a worker that runs what was taken."""

    def __init__(self) -> None:
        self._lease = uuid4().hex
        self._runs: Runs | None = None
        self._waiting: dict[UUID, asyncio.Event] = {}

    async def execute(self, run: JobRun) -> State[Any]:
        """Take a run, run it, and look at it when it has ended."""
        if self._runs is None:
            loop = asyncio.get_running_loop()

            def tell(run_id: UUID, left: bool) -> None:
                loop.call_soon_threadsafe(self._end, run_id)

            self._runs = Runs(owner_of(self._lease), tell, copy_context())
            self._runs.start()
            self._runs.held_until(clock() + 3600)
        ended = self._waiting[run.id] = asyncio.Event()
        async with get_client() as client:
            await propose_state(client, taken_by(self._lease), run.id)
            self._runs.begin(await client.read_flow_run(run.id))
        await ended.wait()
        await APILogHandler.aflush()
        await run.refresh()
        assert run.flow_run.state is not None
        return run.flow_run.state

    def _end(self, run_id: UUID) -> None:
        self._waiting.pop(run_id).set()

    def close(self) -> None:
        """End the thread."""
        if self._runs is not None:
            self._runs.close()
