"""Python's garbage among the runs is collected while a worker waits, too."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from reach import until

from prefect_jobs.deployments import worker_garbage
from prefect_jobs.deployments.worker_garbage import Garbage
from prefect_jobs.deployments.worker_runs import Runs


class Node:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def by_itself_python_collects_nothing() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def test_an_idle_worker_collects_it(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_garbage, "_SECONDS", 1.0)
    runs = Runs("nobody", lambda run_id, left: None, copy_context())
    await asyncio.to_thread(runs.start)
    old = weakref.ref(Node())
    assert old() is not None

    async def is_gone() -> bool:
        return old() is None

    await until(is_gone, 10, "the end of what nobody needs")
    await asyncio.to_thread(runs.close)


def test_while_many_runs_are_at_work_it_waits() -> None:
    old = weakref.ref(Node())
    garbage, now = Garbage(), time.monotonic()
    garbage.time_passed(now, 0)
    garbage.time_passed(now + 1000, 500)
    assert old() is not None
    garbage.time_passed(now + 1000, 1)
    assert old() is None
