"""One supervisor: its lease, the runs that are its own, and those that it takes over from the dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Scheduled

from prefect_jobs.blocks.clock import clock
from prefect_jobs.deployments import worker_figures as figures
from prefect_jobs.deployments.worker_adoption import Adoption, runs_in
from prefect_jobs.deployments.worker_api import Trouble, kind_of_trouble, trouble
from prefect_jobs.deployments.worker_lease import BELIEVED_SECONDS, Lease, Lost
from prefect_jobs.deployments.worker_owner import owner_of, taken_by
from prefect_jobs.deployments.worker_runs import Runs
from prefect_jobs.flows.insisting import insist
from prefect_jobs.names import PIPELINE

logger = logging.getLogger("prefect_jobs.worker")

_RENEW_SECONDS = 3.0
_LOOK_SECONDS = 4.0
_ANSWER_SECONDS, _AWAY_SECONDS = 8.0, 2.0
CLAIM_SECONDS = 300.0
"""How long one look for runs of the dead, and taking them over, may take."""


def handed_back() -> State[Any]:
    """The state of a run that was taken and not begun."""
    return Scheduled(scheduled_time=datetime.now(UTC), message="its worker was told to stop before it began")


class OnStop(StrEnum):
    """What becomes of the runs of a worker that is told to stop."""

    DETACH = "detach"
    """Their containers go on, and the next worker of the pool takes the runs over."""
    WAIT = "wait"
    """The worker ends when they have ended."""
    CANCEL = "cancel"
    """They are cancelled, and the worker ends when nothing of them is left."""


class Supervisor:
    """Looks after runs as long as it holds its lease; who loses it leaves its runs to whoever took it."""

    def __init__(self, pool: str, worker: str, ended: Callable[[], None]) -> None:
        self._pool = pool
        self._worker = worker
        self._ended = ended
        self.mine: set[UUID] = set()
        """The runs that this supervisor has taken, from before it asks for one until it has ended."""
        self._pipelines: set[UUID] = set()
        self.looked = asyncio.Event()
        """Set when the runs that were left before are taken over."""
        self._renewed = asyncio.Event()
        self._some_ended = asyncio.Event()
        self._looking = asyncio.Lock()
        self._troubles: set[Trouble] = set()
        """What is wrong with the API, as far as it was said."""
        self._hinted = False
        self._held_since = clock()
        figures.LEASE_AGE.set_function(lambda: clock() - self._held_since)
        # As it is now: those of a later life are begun in the middle of something else.
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._services: list[asyncio.Task[None]] = []
        self._begin_life()

    @property
    def lease(self) -> Lease:
        """The lease of its life; a new one after it was given up."""
        return self._lease

    def take(self, flow_run: FlowRun) -> None:
        """Count a run among one's own."""
        self.mine.add(flow_run.id)
        if PIPELINE in flow_run.parameters:
            self._pipelines.add(flow_run.id)

    @property
    def pipelines(self) -> set[UUID]:
        """Those of its runs that wait for others: they take no place, or those would wait for one."""
        self._pipelines &= self.mine
        return self._pipelines

    async def held(self) -> Lease:
        """The lease, as soon as it is held."""
        while not self._lease.is_held:
            self._renewed.clear()
            await self._renewed.wait()
        return self._lease

    @property
    def silent_seconds(self) -> float:
        """How long the event loop of the runs has not turned; may be asked in any thread."""
        return time.monotonic() - self._runs.turned

    def _begin_life(self) -> None:
        self._lease = Lease(self._pool, self._worker)
        self._adoption = Adoption(self._pool, self.mine.__contains__, self._adopt, self._finish)
        self._runs = Runs(owner_of(self._lease.id, self._worker), self._forget, self._context)
        self._runs.start()

    def open(self) -> None:
        """Hold the lease, and look after the dead."""
        self._services = [
            asyncio.create_task(self._repeat(_RENEW_SECONDS, self._renew), name="prefect-jobs: lease"),
            asyncio.create_task(self._repeat(_LOOK_SECONDS, self._look), name="prefect-jobs: adoption"),
        ]

    def begin(self, flow_run: FlowRun, lease: Lease) -> bool:
        """Run a run that was taken under a lease; False where that is not held any more, and others may have the run.

        They find it, for its state says under which lease it was taken.
        """
        if self.is_over(lease):
            return False
        self._runs.begin(flow_run)
        return True

    def look_through_all(self) -> None:
        """See soon whether a run was left in the middle."""
        self._adoption.look_through_all()

    async def stop(self, how: OnStop, client: PrefectClient) -> None:
        """Let go of the runs, as asked."""
        try:
            await self._look_no_more()
            if how is not OnStop.DETACH:
                await self._hand_back(client, lost=True)
            if how is OnStop.CANCEL:
                logger.info("Cancelling %d runs", len(self.mine))
                await asyncio.gather(*(self._cancel(client, run_id) for run_id in set(self.mine)))
            if how is not OnStop.DETACH:
                await self.drained()
        finally:
            await asyncio.to_thread(self._runs.abandon if self.mine else self._runs.close)
            await self._hand_back(client)
            if self.mine:
                logger.info("%d runs go on alone until the pool's next worker takes them over", len(self.mine))
            for service in self._services:
                service.cancel()
            await asyncio.gather(*self._services, return_exceptions=True)
            try:
                async with asyncio.timeout(self._answer_seconds):
                    await self._lease.give_back(client)
            except (httpx.HTTPError, TimeoutError) as error:
                logger.warning("The lease could not be given back, and runs out by itself: %r", error)

    @property
    def _answer_seconds(self) -> float:
        """How long the API has to answer at the end; whatever it does not hear then, the next worker finds out."""
        return _AWAY_SECONDS if self._troubles else _ANSWER_SECONDS

    async def _look_no_more(self) -> None:
        """Take nothing more over; what it has begun to take over it takes."""
        looking = self._services.pop()
        try:
            async with asyncio.timeout(self._answer_seconds), self._looking:
                pass
        except TimeoutError:
            pass
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _cancel(self, client: PrefectClient, run_id: UUID) -> None:
        state: State[Any] = Cancelling(message="cancelled because its worker was told to stop")
        with contextlib.suppress(ObjectNotFound):
            await insist(partial(client.set_flow_run_state, run_id, state), "cancel a run")

    async def drained(self) -> None:
        """Wait until no run is left."""
        while self.mine:
            await self.one_ended()

    async def one_ended(self) -> None:
        """Wait until a run has ended from now on."""
        self._some_ended.clear()
        await self._some_ended.wait()

    async def _hand_back(self, client: PrefectClient, *, lost: bool = False) -> None:
        """Let every worker of the pool have what was taken and has never begun, as long as it is this one's to give.

        Where the answer to a claim was lost, the run says so, and `mine` does not; ``lost`` are these alone.
        """
        taken = taken_by(self._lease.id, self._worker).message
        try:
            async with asyncio.timeout(self._answer_seconds):
                pending = await runs_in(client, self._pool, [StateType.PENDING])
            for flow_run in pending:
                said = flow_run.state.message if flow_run.state is not None else None
                if said != taken or flow_run.run_count or (lost and flow_run.id in self.mine):
                    continue
                if not self._lease.is_held:
                    return
                async with asyncio.timeout(self._answer_seconds):
                    with contextlib.suppress(ObjectNotFound):
                        await client.set_flow_run_state(flow_run.id, handed_back())
                self.mine.discard(flow_run.id)
        except (httpx.HTTPError, TimeoutError) as error:
            logger.debug("What was not begun could not be handed back, and is taken over: %r", error)

    # -- the lease

    async def _repeat(self, seconds: float, work: Callable[[PrefectClient], Awaitable[None]]) -> None:
        # Who holds a lease wants to know at once that the API is away.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as client:
                while True:
                    try:
                        await work(client)
                        self._say_away(None)
                    except (httpx.HTTPError, TimeoutError) as error:
                        self._say_away(error)
                    except Exception:
                        logger.exception("The worker stumbled, and goes on")
                    await asyncio.sleep(seconds)

    async def _renew(self, client: PrefectClient) -> None:
        lease = self._lease
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await lease.take(client)
        except Lost:
            logger.error(
                "Another supervisor has given this one up and taken over its %d runs: it did not renew its lease in "
                "time. It begins anew",
                len(self.mine),
            )
            await asyncio.to_thread(self._runs.abandon)
            self.mine.clear()
            self._some_ended.set()
            self._begin_life()
            return
        self._held_since = lease.held_until - BELIEVED_SECONDS
        self._runs.held_until(lease.held_until)
        self._renewed.set()

    async def _look(self, client: PrefectClient) -> None:
        lease = await self.held()
        try:
            async with self._looking, asyncio.timeout(CLAIM_SECONDS) as limit:
                await self._adoption.look(client, lease)
        except TimeoutError:
            if not limit.expired():
                raise
            logger.warning("Taking over runs takes longer than %g s; it goes on with what is left", CLAIM_SECONDS)
            return
        self.looked.set()

    def is_over(self, lease: Lease) -> bool:
        """Whether a lease is not held any more, or was that of an earlier life."""
        return lease is not self._lease or not lease.is_held

    def _adopt(self, flow_run: FlowRun, lease: Lease) -> None:
        if not self.is_over(lease):
            self.take(flow_run)
            self._runs.begin(flow_run, adopted=True)

    def _finish(self, flow_run: FlowRun, lease: Lease) -> None:
        if not self.is_over(lease):
            self.take(flow_run)
            self._runs.finish(flow_run)

    def _forget(self, run_id: UUID, left: bool) -> None:
        def forget() -> None:
            self.mine.discard(run_id)
            if left:
                self.look_through_all()
            self._some_ended.set()
            self._ended()

        self._loop.call_soon_threadsafe(forget)

    def _say_away(self, error: Exception | None) -> None:
        """Say each thing that is wrong once, until it is over; and that it is over."""
        if error is not None and (kind := kind_of_trouble(error)) not in self._troubles:
            self._troubles.add(kind)
            logger.warning("%s: what runs goes on, and is reported later", trouble(error))
            if kind is Trouble.BUSY and not self._hinted:
                self._hinted = True
                logger.warning(
                    "Where the server keeps its data in SQLite, this load may be too much for it: give it Postgres "
                    "(PREFECT_API_DATABASE_CONNECTION_URL)"
                )
        elif error is None and self._troubles:
            self._troubles.clear()
            logger.info("Prefect's API answers again")
        figures.API_AWAY.set(bool(self._troubles))
