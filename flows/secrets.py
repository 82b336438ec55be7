"""Secrets by reference: a job names Prefect's Secret blocks, a run reads their values."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, cast

from prefect.blocks.system import Secret

from prefect_jobs.errors import NotFoundError
from prefect_jobs.flows.insisting import insist
from prefect_jobs.job import Job


async def read_secret(job: Job, name: str, block: str) -> str:
    """The value of a Secret block that a job takes as ``name``; what is no text comes as JSON.

    Raises:
        NotFoundError: there is no such block.
    """
    try:
        secret = cast("Secret[Any]", await insist(partial(Secret.aload, block), "read a secret"))
        value = secret.get()
        return value if isinstance(value, str) else json.dumps(value)
    except ValueError as error:
        raise NotFoundError(
            f"job {job.name!r} takes {name} from the Prefect Secret block {block!r}, which does not exist: make it in "
            "the Prefect UI (Blocks, Secret)"
        ) from error
