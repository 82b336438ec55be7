"""The work pool that jobs are sent to, as it is made where there is none: of the type of this project's worker."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from prefect_jobs.names import WORKER_TYPE


def base_job_template() -> dict[str, Any]:
    """What a pool says of how its runs are started: nothing, because job and infrastructure block say all of it.

    Prefect's own variables (command, environment, labels) would be drawn in its UI and do nothing; a run that sets one
    is refused.
    """
    return {
        # Prefect refuses an empty one.
        "job_configuration": {"env": {}},
        "variables": {"type": "object", "properties": {}, "additionalProperties": False},
    }


async def ensure_work_pool(client: PrefectClient, name: str) -> None:
    """Make the pool where there is none yet; one that is there stays as it is, whatever its type."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        wanted = WorkPoolCreate(name=name, type=WORKER_TYPE, base_job_template=base_job_template())
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(wanted)
