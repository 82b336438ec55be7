"""Following a run: Prefect's event and log streams ring the bell, its API tells what is true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.objects import FlowRun, Log, WorkPoolStatus
from prefect.client.schemas.sorting import LogSort
from prefect.events.subscribers import FlowRunSubscriber
from prefect.exceptions import ObjectNotFound

from prefect_jobs.deployments.printing import nothing
from prefect_jobs.errors import NotFoundError
from prefect_jobs.flows.insisting import insist
from prefect_jobs.names import WORKER_TYPE

_PAGE = 200
# Without a bell (the stream is down) the API is asked this often; with one, a missed ring costs no more than this.
_LONGEST_SILENCE = 5.0
# Records of different processes arrive out of order by about a batch interval.
_LATE = timedelta(seconds=15)
_STRAGGLERS = 4.0
_CANCELLATIONS = 10


async def read_run(client: PrefectClient, run_id: UUID) -> FlowRun:
    """A run as it is now.

    Raises:
        NotFoundError: it was deleted.
    """
    try:
        return await client.read_flow_run(run_id)
    except ObjectNotFound as error:
        raise NotFoundError(f"the run {run_id} is not there any more: somebody deleted it") from error


async def all_logs(client: PrefectClient, run_id: UUID, since: datetime | None = None) -> AsyncIterator[Log]:
    """A run's log records in order, from a time on."""
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    if since is not None:
        chosen.timestamp = LogFilterTimestamp(after_=since)
    offset = 0
    while True:
        page = await client.read_logs(chosen, limit=_PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC)
        for log in page:
            yield log
        if len(page) < _PAGE:
            return
        offset += len(page)


async def follow(
    client: PrefectClient,
    flow_run: FlowRun,
    on_state: Callable[[FlowRun], None],
    on_log: Callable[[Log], None],
    on_hint: Callable[[str], None] = nothing,
) -> None:
    """Report every change of state and every log record, once each, until the run has ended and its log is complete.

    A run that is scheduled while nobody serves its pool is worth a hint.

    An API that is away is asked again; the run goes on meanwhile.

    Raises:
        NotFoundError: the run was deleted.
        httpx.HTTPStatusError: the API refuses to show it, with a status of 400 to 499.
    """
    bell = asyncio.Event()
    ringing = asyncio.create_task(_ring(bell, flow_run.id), name="prefect-jobs: watch")
    seen: set[UUID] = set()
    latest: datetime | None = None
    shown: str | None = None
    deadline: float | None = None
    loop = asyncio.get_running_loop()

    async def look() -> bool:
        """Whether the log's last record was among the new ones."""
        nonlocal flow_run, latest
        complete = False
        flow_run = await read_run(client, flow_run.id)
        async for log in all_logs(client, flow_run.id, latest - _LATE if latest else None):
            if log.id not in seen:
                seen.add(log.id)
                latest = max(latest or log.timestamp, log.timestamp)
                on_log(log)
                complete = complete or _is_last(log)
        return complete

    try:
        while True:
            bell.clear()
            complete = await insist(look, "show a run")
            state = flow_run.state
            if state is not None and state.name != shown:
                shown = state.name
                on_state(flow_run)
                if state.is_scheduled() and flow_run.work_pool_name and (hint := await _hint(client, flow_run)):
                    on_hint(hint)
            if state is not None and state.is_final():
                deadline = deadline or loop.time() + _STRAGGLERS
                if complete or state.is_cancelled() or loop.time() >= deadline:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3 if deadline else _LONGEST_SILENCE):
                    await bell.wait()
            await asyncio.sleep(0.1)  # What rings once often rings again at once.
    finally:
        await _end(ringing)


async def _hint(client: PrefectClient, flow_run: FlowRun) -> str | None:
    """What to do where nobody takes the runs of a run's pool; None where somebody does, or that is not known."""
    name = flow_run.work_pool_name or ""
    try:
        pool = await client.read_work_pool(name)
    except (ObjectNotFound, httpx.HTTPError):
        return None
    if pool.status is WorkPoolStatus.PAUSED:
        return f"the work pool {name!r} is paused: prefect work-pool resume {name}"
    if pool.status is WorkPoolStatus.NOT_READY:
        command = "prefect-jobs worker" if pool.type == WORKER_TYPE else "prefect worker start"
        return f"no worker serves the work pool {name!r}: {command} --pool {name}"
    return None


def _is_last(log: Log) -> bool:
    """Whether it is the flow engine's last word, after all of the container's."""
    return log.name == "prefect.flow_runs" and log.message.startswith("Finished in state ")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it hears: before Python 3.12 `asyncio.wait_for`, in Prefect's subscriber, may lose it."""
    for _ in range(_CANCELLATIONS):
        task.cancel()
        ended, _running = await asyncio.wait([task], timeout=1)
        if ended:
            return


async def _ring(bell: asyncio.Event, run_id: UUID) -> None:
    """Ring for each event and each log record that Prefect streams; start over when the stream breaks."""
    while True:
        with contextlib.suppress(Exception):
            async with FlowRunSubscriber(flow_run_id=run_id) as items:
                async for _ in items:
                    bell.set()
        bell.set()
        await asyncio.sleep(1)
