"""How far a transfer is, said every few seconds while it lasts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prefect_jobs.blocks.engine import Tell

EACH = 10.0
"""Seconds between two lines; a transfer that takes less says nothing."""


class Progress:
    """What has been transferred of what is to be; threads add to it."""

    def __init__(self, verb: str, files: int, size: int) -> None:
        self._verb, self._of_files, self._of_size = verb, files, size
        self._files = self._size = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes more, or less where they have to be transferred again."""
        with self._lock:
            self._size += size

    def done(self) -> None:
        """One file more."""
        with self._lock:
            self._files += 1

    @property
    def line(self) -> str:
        """How far it is, in one line."""
        rate = self._size / max(time.monotonic() - self._began, 1e-3)
        return (
            f"{self._verb} {self._files:,} of {self._of_files:,} files, {self._size / 2**20:,.0f} of "
            f"{self._of_size / 2**20:,.0f} MiB, {rate / 2**20:,.1f} MiB/s"
        )

    @asynccontextmanager
    async def telling(self, tell: Tell | None) -> AsyncIterator[None]:
        """Say so while this goes on, and once more at its end where anything was said."""
        said = False

        async def speak(tell: Tell) -> None:
            nonlocal said
            while True:
                await asyncio.sleep(EACH)
                tell(self.line)
                said = True

        speaker = asyncio.create_task(speak(tell)) if tell else None
        try:
            yield
        finally:
            if speaker is not None:
                speaker.cancel()
                with suppress(asyncio.CancelledError):
                    await speaker
        if said and tell:
            tell(self.line)
