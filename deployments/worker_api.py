"""How the runs of a worker reach Prefect's API: one client for all of them, which waits out an API that is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus, StateAcceptDetails
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from prefect_jobs.blocks.clock import clock
from prefect_jobs.blocks.patience import Patience
from prefect_jobs.deployments import worker_figures as figures

T = TypeVar("T")
logger = logging.getLogger("prefect_jobs.worker")

# Raised before anything was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BUSY = (429, 503)
_GATEWAY = (502, 504)
_AWAY = (*_BUSY, *_GATEWAY)
# What Prefect's server answers when its database was in the way: a state is told again, for so many seconds.
_STUMBLED, _STUMBLES_SECONDS = 500, 60.0
# Doing these twice would show: their senders ask whether the first time counted.
_ONCE = ("/logs/", "/artifacts/")
_OPENING_SECONDS = 60.0
_PATIENCE = Patience("Prefect's API", lambda error: True, logger, first=0.5, longest=10.0)


class Trouble(Enum):
    """What can be wrong with Prefect's API, as it is said."""

    AWAY = "does not answer"
    BUSY = "is busy"
    REFUSED = "refused"


def kind_of_trouble(error: Exception) -> Trouble:
    """What is wrong with Prefect's API."""
    if not isinstance(error, httpx.HTTPStatusError) or error.response.status_code in _GATEWAY:
        return Trouble.AWAY
    return Trouble.BUSY if error.response.status_code in _BUSY else Trouble.REFUSED


def trouble(error: Exception) -> str:
    """What is wrong with Prefect's API, in a few words, with its answer."""
    kind = kind_of_trouble(error)
    if not isinstance(error, httpx.HTTPStatusError):
        return f"Prefect's API {kind.value} ({error!r})"
    answer = f"{error.response.status_code} {error.response.reason_phrase}".rstrip()
    return f"Prefect's API {kind.value} ({answer if kind is Trouble.AWAY else f'it answered {answer}'})"


class Gate:
    """Lets the requests of runs pass as long as their supervisor holds its lease.

    A supervisor that could not renew it, because it was cut off or stopped, may have been given up: its runs are then
    another's, and it must not report anything about them.
    """

    def __init__(self) -> None:
        # Before the lease is taken there are no runs.
        self._until = clock() + _OPENING_SECONDS
        self._renewed = asyncio.Event()
        self._shut = False
        self._inside = 0
        self.quiet = asyncio.Event()
        """Set while no request is on its way."""
        self.quiet.set()

    def open_until(self, moment: float) -> None:
        """Let pass until a moment of the lease's clock, in seconds."""
        self._until = moment
        self._renewed.set()

    def shut(self) -> None:
        """Let nothing pass any more."""
        self._shut = True

    async def passed(self) -> None:
        """Wait until the lease is held."""
        while self._shut or clock() > self._until:
            self._renewed.clear()
            await self._renewed.wait()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A request that passed, until it is answered."""
        self._inside += 1
        self.quiet.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self.quiet.set()


class PatientTransport(httpx.AsyncBaseTransport):
    """Sends each request until the API answers, as far as doing it twice does no harm."""

    def __init__(self, inner: httpx.AsyncBaseTransport, gate: Gate | None = None) -> None:
        self._inner = inner
        self._gate = gate

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; a state that is set twice has one transition id, and the API takes it once."""
        repeatable = not request.url.path.endswith(_ONCE)
        is_state = request.url.path.endswith("/set_state")
        stumbles_until: float | None = None
        async for _ in _PATIENCE.delays():
            if self._gate is not None:
                await self._gate.passed()
            figures.API_REQUESTS.inc()
            try:
                with nullcontext() if self._gate is None else self._gate.inside():
                    response = await self._inner.handle_async_request(request)
            except httpx.TransportError as error:
                figures.API_ERRORS.inc()
                if not repeatable and not isinstance(error, _NOT_SENT):
                    raise
                logger.debug("Prefect's API does not answer (%r); asking again", error)
                continue
            again = response.status_code in _AWAY
            if is_state and response.status_code == _STUMBLED:
                stumbles_until = stumbles_until or clock() + _STUMBLES_SECONDS
                again = clock() < stumbles_until
            figures.API_ERRORS.inc(again)
            if not again or not repeatable:
                return response
            await response.aclose()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def make_patient(client: PrefectClient, gate: Gate | None = None) -> None:
    """Let a client wait out an API that is away."""
    # The library takes a transport only instead of all that it makes of the settings: certificates, proxies, limits.
    http: Any = client._client
    http._transport = PatientTransport(http._transport, gate)
    http._mounts = {pattern: inner and PatientTransport(inner, gate) for pattern, inner in http._mounts.items()}


class RunsClient(PrefectClient):
    """The client of all runs of one supervisor, as their flows and Prefect's engine use it."""

    def __init__(self, owner: str, gate: Gate) -> None:
        settings = get_current_settings().api
        auth_string = None if settings.auth_string is None else settings.auth_string.get_secret_value()
        api_key = None if settings.key is None else settings.key.get_secret_value()
        super().__init__(str(settings.url), auth_string=auth_string, api_key=api_key)
        make_patient(self, gate)
        self._owner = owner
        self.slots: dict[UUID, UUID] = {}
        """Run: the lease of its place within its deployment's concurrency limit."""
        self._begun: dict[UUID, FlowRun] = {}

    def forget(self, run_id: UUID) -> None:
        """Keep nothing of a run that has ended."""
        self.slots.pop(run_id, None)
        self._begun.pop(run_id, None)

    def begin(self, flow_run: FlowRun) -> None:
        """Keep a run as it was when it was taken: what becomes of it when it begins is known without asking."""
        self._begun[flow_run.id] = flow_run

    async def set_flow_run_state(
        self, flow_run_id: UUID | str, state: State[T], force: bool = False
    ) -> OrchestrationResult[T]:
        """As Prefect's; the answer tells what a run looks like that begins by it.

        How a run ended that was deleted is nobody's to know: its engine goes to its end without a word about it.
        """
        try:
            result = await super().set_flow_run_state(flow_run_id, state, force)
        except ObjectNotFound:
            if not state.is_final():
                raise
            return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=StateAcceptDetails())
        flow_run = self._begun.get(UUID(str(flow_run_id)))
        if flow_run is None:
            return result
        if result.status is SetStateStatus.ACCEPT and state.is_running() and result.state is not None:
            now = result.state
            self._begun[flow_run.id] = flow_run.model_copy(
                update={
                    "state": now,
                    "state_id": now.id,
                    "state_type": now.type,
                    "state_name": now.name,
                    "run_count": flow_run.run_count + 1,
                    "start_time": flow_run.start_time or now.timestamp,
                    "infrastructure_pid": self._owner,
                }
            )
        else:
            del self._begun[flow_run.id]
        return result

    async def update_flow_run(self, flow_run_id: UUID, *args: Any, **fields: Any) -> httpx.Response:
        """As Prefect's. Its engine says by this that it begins a run: the same request says whose it is."""
        if "empirical_policy" in fields:
            fields.setdefault("infrastructure_pid", self._owner)
        return await super().update_flow_run(flow_run_id, *args, **fields)

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """As Prefect's, but its engine does not see that the run has a place within a limit.

        The engine would start a thread for each such run, and stop the run when the API is away for a while: the
        supervisor renews the leases of all (`slots`).
        """
        flow_run = self._begun.pop(flow_run_id, None)
        if flow_run is None or flow_run.state is None or not flow_run.state.is_running():
            flow_run = await super().read_flow_run(flow_run_id)
        if flow_run.state is not None and (lease := flow_run.state.state_details.deployment_concurrency_lease_id):
            self.slots[flow_run_id] = lease
            flow_run.state.state_details.deployment_concurrency_lease_id = None
        return flow_run


@asynccontextmanager
async def shared_client(owner: str, gate: Gate) -> AsyncIterator[RunsClient]:
    """One client for whatever asks for a client of Prefect within this context.

    Prefect's engine makes a blocking client for each run, and asks it nothing: making one takes as long as all else.
    """
    context = AsyncClientContext()
    client = RunsClient(owner, gate)
    context.client = client
    async with context:
        with SyncClientContext.get_or_create():
            yield client
