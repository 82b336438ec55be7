"""The places of runs within limits are renewed; of one that has ended meanwhile nothing is said."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Response
from prefect.client.orchestration import PrefectClient
from prefect.settings import get_current_settings
from reach import until

from prefect_jobs.deployments.worker_places import renew_places


class Ending(PrefectClient):
    """A client while whose requests to renew a place another run ends, and this one, too, where it is said."""

    def __init__(self, places: dict[UUID, UUID], ends: list[UUID]) -> None:
        super().__init__(str(get_current_settings().api.url))
        self._places, self._ends = places, ends
        self.renewed: list[UUID] = []

    async def renew_concurrency_lease(self, lease_id: UUID, *args: Any, **options: Any) -> Response:
        """As Prefect's."""
        self.renewed.append(lease_id)
        for run_id in self._ends:
            self._places.pop(run_id, None)
        return await super().renew_concurrency_lease(lease_id, *args, **options)


async def said_of(ends: int, caplog: pytest.LogCaptureFixture, expected: tuple[int, int]) -> tuple[int, int]:
    """How many of two places that Prefect knows nothing of are asked for, and how many said to be lost.

    Waits until it is as expected, and then whether it stays so.
    """
    runs = [uuid4(), uuid4()]
    places = {run: uuid4() for run in runs}
    async with Ending(places, runs[:ends]) as client:
        renewing = asyncio.create_task(renew_places(client, places))

        def so_far() -> tuple[int, int]:
            return len(client.renewed), caplog.text.count("has lost its place within its limit")

        async def is_so() -> bool:
            return so_far() == expected

        await until(is_so, 60, f"{expected}")
        await asyncio.sleep(3)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        return so_far()


async def test_a_run_that_ends_while_places_are_renewed_is_not_said_to_have_lost_its_own(
    prefect_api: str, caplog: pytest.LogCaptureFixture
) -> None:
    for ends, expected in ((2, (1, 0)), (1, (2, 1)), (0, (2, 2))):
        caplog.clear()
        assert await said_of(ends, caplog, expected) == expected
