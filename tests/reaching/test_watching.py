"""Watching ends when the run has, although a cancellation may get lost on the way (https://bugs.python.org/issue37658)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest
from prefect.events.subscribers import FlowRunSubscriber

from prefect_jobs.deployments import watch


async def test_a_cancellation_that_comes_with_the_last_record_does_not_keep_a_watch_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last_records: asyncio.Queue[str] = asyncio.Queue()

    class Straggling(FlowRunSubscriber):
        """Prefect's subscriber after the end of a run, when it waits for the last records; without its sockets."""

        async def __aenter__(self) -> Straggling:
            self._queue, self._tasks, self._flow_completed = last_records, [asyncio.current_task()], True
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(watch, "FlowRunSubscriber", Straggling)
    ringing = asyncio.create_task(watch._ring(asyncio.Event(), uuid4()))
    await asyncio.sleep(0.1)
    last_records.put_nowait("Finished in state Completed()")
    await asyncio.sleep(0)
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await watch._end(ringing)
    assert ringing.cancelled()
