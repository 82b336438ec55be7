"""The heartbeats of all runs of a worker, from one loop: Prefect's engine would start a thread for each run."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from uuid import UUID

from prefect import __version__
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.events import Event, RelatedResource, Resource
from prefect.settings import get_current_settings
from pydantic import ValidationError

logger = logging.getLogger("prefect_jobs.worker")

_LOOK = 1.0
# Events in one request.
_AT_ONCE = 50


@dataclass
class _Heart:
    flow_run: FlowRun
    flow: str
    next: float = 0.0
    related: list[RelatedResource] = field(default_factory=list)


class Heartbeats:
    """Tells Prefect of each run that somebody looks after it: soon, and every so many seconds; never for None."""

    def __init__(self, seconds: int | None) -> None:
        self._seconds = seconds
        self._hearts: dict[UUID, _Heart] = {}
        self._queues: dict[UUID, list[RelatedResource]] = {}

    def begin(self, flow_run: FlowRun, flow: str) -> None:
        """Begin to tell of a run, with the flow's name; the first time within a second."""
        self._hearts[flow_run.id] = _Heart(flow_run, flow)

    def end(self, run_id: UUID) -> None:
        """Say no more of a run."""
        self._hearts.pop(run_id, None)

    async def beat(self, client: PrefectClient) -> None:
        """Tell of all runs, for ever; there are none while the client waits for an API that is away."""
        while self._seconds is not None:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            due = [heart for heart in self._hearts.values() if heart.next <= now]
            for heart in due:
                heart.next = now + self._seconds
                heart.related = heart.related or await self._related(client, heart)
            for start in range(0, len(due), _AT_ONCE):
                # Some may have ended meanwhile.
                hearts = [heart for heart in due[start : start + _AT_ONCE] if heart.flow_run.id in self._hearts]
                await _send(client, [event for heart in hearts if (event := _event(heart)) is not None])

    async def _related(self, client: PrefectClient, heart: _Heart) -> list[RelatedResource]:
        """To what else a heartbeat belongs: what those of Prefect's engine tell."""
        flow_run = heart.flow_run
        related = [_resource("flow", flow_run.flow_id, heart.flow)]
        if flow_run.deployment_id is not None:
            related.append(_resource("deployment", flow_run.deployment_id))
        related += await self._queue(client, flow_run.work_queue_id)
        related += [_resource("tag", tag) for tag in sorted(flow_run.tags)]
        # An event with more is refused.
        return related[: get_current_settings().server.events.maximum_related_resources]

    async def _queue(self, client: PrefectClient, queue_id: UUID | None) -> list[RelatedResource]:
        """A work queue and its pool, asked for once."""
        if queue_id is None:
            return []
        if queue_id not in self._queues:
            try:
                queue = await client.read_work_queue(queue_id)
            except Exception as error:
                logger.debug("The work queue %s is left out of heartbeats: %r", queue_id, error)
                return []
            self._queues[queue_id] = [_resource("work-queue", queue_id, queue.name)]
            if queue.work_pool_id is not None:
                self._queues[queue_id].append(_resource("work-pool", queue.work_pool_id, queue.work_pool_name))
        return self._queues[queue_id]


def _event(heart: _Heart) -> Event | None:
    """A heartbeat of a run; None where Prefect takes none, for then the others beat all the same."""
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{heart.flow_run.id}",
        "prefect.resource.name": heart.flow_run.name,
        "prefect.version": __version__,
    }
    try:
        return Event(event="prefect.flow-run.heartbeat", resource=Resource(resource), related=heart.related)
    except ValidationError as error:
        logger.debug("Run %s has no heartbeat: %r", heart.flow_run.id, error)
        return None


async def _send(client: PrefectClient, events: list[Event]) -> None:
    """Send events together; Prefect's own way would lose what it cannot send at once, with a long error for each."""
    if not events:
        return
    try:
        await client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])
    except Exception as error:
        logger.debug("%d heartbeats did not arrive: %r", len(events), error)


def _resource(role: str, identity: UUID | str, name: str | None = None) -> RelatedResource:
    fields = {"prefect.resource.id": f"prefect.{role}.{identity}", "prefect.resource.role": role}
    return RelatedResource(fields if name is None else {**fields, "prefect.resource.name": name})
