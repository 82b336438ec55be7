"""Hearing of Prefect's events: one subscription, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.events.schemas.events import Event

logger = logging.getLogger("prefect_jobs.events")

# How soon a subscription that broke is opened again.
_PAUSE = 2.0


def run_of(event: Event) -> UUID | None:
    """The flow run that an event is about, if it is about one."""
    with contextlib.suppress(ValueError):
        return UUID(event.resource.id.removeprefix("prefect.flow-run."))
    return None


class Events:
    """Hands on each event that has one of some names, as long as `listen` is at work.

    What happens while there is no connection is heard of by nobody: look for it when there is one (``connect``), and
    now and then while there is none.
    """

    def __init__(self, *names: str, hear: Callable[[Event], None], connect: Callable[[], None]) -> None:
        self._names = list(names)
        self._hear = hear
        self._connect = connect
        self.connected = asyncio.Event()
        """Set while events arrive."""
        self.broke = asyncio.Event()
        """Set each time when the connection is lost; who waits for that clears it."""

    async def listen(self) -> None:
        """Hear of events, for ever."""
        chosen = EventFilter(event=EventNameFilter(name=self._names))
        while True:
            try:
                async with get_events_subscriber(filter=chosen, reconnection_attempts=0) as events:
                    self.connected.set()
                    self._connect()
                    async for event in events:
                        self._hear(event)
            except Exception as error:
                logger.debug("No events from Prefect; subscribing again: %r", error)
            finally:
                if self.connected.is_set():
                    self.broke.set()
                self.connected.clear()
            await asyncio.sleep(_PAUSE)
