"""Taking runs from a work pool: what is due is asked for when it may be, and claimed, each run by one worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.events import Event
from prefect.exceptions import Abort, ObjectNotFound
from prefect.utilities.engine import propose_state

from prefect_jobs.deployments.worker_adoption import had_ended
from prefect_jobs.deployments.worker_api import trouble
from prefect_jobs.deployments.worker_due import ANSWER_SECONDS, MOST, Due, Wanted
from prefect_jobs.deployments.worker_owner import taken_by
from prefect_jobs.deployments.worker_supervisor import CLAIM_SECONDS, Supervisor, handed_back
from prefect_jobs.errors import InfrastructureError
from prefect_jobs.flows.events import Events

logger = logging.getLogger("prefect_jobs.worker")

# Between two polls, however many runs are made or end.
_POLL_PAUSE = 0.05
_REFUSED_PAUSE = 1.0
# Between two looks of a worker that runs once for what its pipelines have started.
_CHILDREN_PAUSE = 0.5
# Claims on their way to the API at once.
_CLAIMS = 8
_HAND_BACK_SECONDS = 15.0


class Taking:
    """Takes runs for a supervisor, as far as the limit allows."""

    def __init__(self, client: PrefectClient, supervisor: Supervisor, wanted: Wanted) -> None:
        self._client = client
        self._supervisor = supervisor
        self._wanted = wanted
        self.due = Due(client, wanted)
        self._stopping = False
        self._services: list[asyncio.Task[None]] = []
        self._claims: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Semaphore(_CLAIMS)
        self._wake = asyncio.Event()
        self._polling = asyncio.Lock()
        self._full = False
        self._waiting: dict[UUID, asyncio.TimerHandle] = {}

    def open(self) -> None:
        """Poll as soon as a run becomes due, or there is room for one."""
        events = Events("prefect.flow-run.Scheduled", hear=self._hear, connect=self._wake.set)
        self._services = [
            asyncio.create_task(self._poll_when_woken(), name="prefect-jobs: polls"),
            asyncio.create_task(events.listen(), name="prefect-jobs: events of new runs"),
        ]

    def stop(self) -> None:
        """Take no more runs."""
        self._stopping = True

    async def close(self) -> None:
        """Take no more runs; what is on its way is taken or handed back."""
        self.stop()
        for handle in self._waiting.values():
            handle.cancel()
        for service in self._services:
            service.cancel()
        await asyncio.gather(*self._services, return_exceptions=True)
        if self._claims:
            await asyncio.wait(self._claims, timeout=_HAND_BACK_SECONDS)

    async def poll(self) -> list[FlowRun]:
        """Take what is due, as far as the limit allows; what is due soon is taken when its time has come."""
        if self._stopping:
            return []
        if not self._supervisor.lease.is_held:
            self._wake.set()  # As soon as it is: the next regular poll may be far away.
            return []
        async with self._polling:
            room = self._room()
            taken: list[FlowRun] = []
            if room > 0:
                ahead = await self.due.soon(room)
                while ahead and len(taken) < room:
                    taken += self._take([ahead.pop(0)])
            # Those that wait for their time may hide some of a queue with a lower priority.
            self._full = len(taken) >= room or self.due.has_more
        if taken and self.due.has_more and self._room() > 0:
            self._wake.set()
        return taken

    async def take_what_is_due(self) -> list[FlowRun]:
        """Take all that is due now, each once, and wait until it has ended; and what is due while a pipeline goes on.

        Raises:
            NotFoundError: a work queue is not there.
            InfrastructureError: Prefect's API does not answer, or the runs of the dead could not be taken over.
        """
        supervisor, now = self._supervisor, datetime.now(UTC)
        taken: dict[UUID, FlowRun] = {}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await supervisor.held()
            await self._left_is_taken_over()
            while True:
                while self._room() <= 0:
                    await supervisor.one_ended()
                found = await self.due.before(now, self._room())
                fresh = self._take(run for run in found if run.id not in taken)
                taken |= {run.id: run for run in fresh}
                if fresh:
                    await asyncio.wait(self._claims)
                elif not supervisor.mine:
                    break
                elif supervisor.pipelines:
                    # They wait for runs that they have yet to start.
                    await asyncio.sleep(_CHILDREN_PAUSE)
                    now = datetime.now(UTC)
                else:
                    # As long as they hold all places of the pool or of a queue, the API does not list what is due.
                    await supervisor.one_ended()
        except (httpx.HTTPError, TimeoutError) as error:
            raise no_answer(self._wanted.pool, error) from error
        return list(taken.values())

    def has_room(self) -> None:
        """There is room for a run more than before."""
        if self._full:
            self._wake.set()

    async def _left_is_taken_over(self) -> None:
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await self._supervisor.looked.wait()
        except TimeoutError:
            if not self._supervisor.lease.is_held:
                raise
            raise InfrastructureError(
                f"what workers of the pool {self._wanted.pool!r} that are gone have left could not be taken over "
                "within "
                f"{CLAIM_SECONDS:g} s, and nothing new was begun: the lines above say why; start the worker again"
            ) from None

    def _room(self) -> int:
        """How many runs may be taken now."""
        limit, supervisor = self._wanted.limit, self._supervisor
        return MOST if limit is None else min(MOST, limit - len(supervisor.mine) + len(supervisor.pipelines))

    # -- taking it

    def _take(self, flow_runs: Iterable[FlowRun]) -> list[FlowRun]:
        """Take the runs that are due; those that were."""
        return [flow_run for flow_run in flow_runs if self._take_one(flow_run)]

    def _take_one(self, flow_run: FlowRun) -> bool:
        if flow_run.id in self._supervisor.mine:
            return False
        due = flow_run.next_scheduled_start_time
        if due is not None and (early := due.timestamp() - time.time()) > 0:
            if flow_run.id not in self._waiting:
                self._waiting[flow_run.id] = asyncio.get_running_loop().call_later(early, self._due, flow_run.id)
            return False
        self._supervisor.take(flow_run)
        task = asyncio.create_task(self._claim(flow_run), name=f"prefect-jobs: claim {flow_run.id}")
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)
        return True

    def _due(self, run_id: UUID) -> None:
        self._waiting.pop(run_id, None)
        self._poll_anew()

    async def _claim(self, flow_run: FlowRun) -> None:
        """Take a run, if no other worker did and its limits allow it, and begin it."""
        supervisor = self._supervisor
        begun, lease = False, supervisor.lease
        try:
            async with self._claiming:
                if not self._stopping and not supervisor.is_over(lease):
                    state = await propose_state(self._client, taken_by(lease.id, self._wanted.worker), flow_run.id)
                    if await had_ended(self._client, flow_run.id, state):
                        logger.debug("Run %s was not taken: it had ended meanwhile", flow_run.id)
                    elif state.is_pending() and self._stopping:
                        await self._client.set_flow_run_state(flow_run.id, handed_back())
                    elif state.is_pending():
                        begun = supervisor.begin(flow_run.model_copy(update={"state": state}), lease)
                        if not begun:
                            supervisor.look_through_all()
        except (Abort, ObjectNotFound) as refused:
            logger.debug("Run %s was not taken: %s", flow_run.id, refused)
        except Exception as error:
            why = trouble(error) if isinstance(error, httpx.HTTPError) else repr(error)
            logger.warning("Run %s could not be taken, and is tried again: %s", flow_run.id, why)
            # It may have been taken all the same: then it is found among one's own.
            supervisor.look_through_all()
        finally:
            # In a new life, whatever is its own it has taken anew.
            if not begun and lease is supervisor.lease:
                supervisor.mine.discard(flow_run.id)
            if not begun:
                # There is room again; not at once, for the same run may be refused each time.
                asyncio.get_running_loop().call_later(_REFUSED_PAUSE, self.has_room)

    # -- hearing of it

    async def _poll_when_woken(self) -> None:
        while True:
            await self._wake.wait()
            await self._supervisor.held()
            self._wake.clear()
            await self.poll()
            await asyncio.sleep(_POLL_PAUSE)

    def _hear(self, event: Event) -> None:
        pool = self._wanted.pool
        if any(related.role == "work-pool" and related.name == pool for related in event.related):
            self._poll_anew()

    def _poll_anew(self) -> None:
        self.due.forget()
        self._wake.set()


def no_answer(pool: str, error: Exception) -> InfrastructureError:
    """What a worker that runs once says when it can ask for no runs."""
    return InfrastructureError(
        f"the work pool {pool!r} could not be asked for runs: {trouble(error)}; start the worker again when it does"
    )
