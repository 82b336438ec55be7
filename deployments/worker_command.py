"""The command ``prefect-jobs worker``: a worker in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.settings import get_current_settings

from prefect_jobs.deployments.worker import JobsWorker
from prefect_jobs.deployments.worker_supervisor import OnStop
from prefect_jobs.errors import InfrastructureError


def work(pool: str, name: str | None, options: dict[str, Any], *, run_once: bool, with_healthcheck: bool) -> None:
    """Take runs until this process is told to stop, or with ``run_once`` until those that are due have ended.

    Raises:
        InfrastructureError: there is no API to take runs from, or it did not answer one that runs once; or a port that
            the worker is to serve is taken.
        NotFoundError: a work queue of one that runs once is not there.
    """
    if not get_current_settings().api.url:
        raise InfrastructureError(
            "a worker needs a Prefect server that others reach too: start one with 'prefect server start', and set "
            "PREFECT_API_URL, such as http://127.0.0.1:4200/api"
        )
    if "on_stop" in options:
        options = {**options, "on_stop": OnStop(options["on_stop"])}
    worker = JobsWorker(pool, name=name, **options)
    try:
        asyncio.run(_start(worker, run_once, with_healthcheck))
    except BaseExceptionGroup as group:
        raise _first(group) from None


async def _start(worker: JobsWorker, run_once: bool, with_healthcheck: bool) -> None:
    try:
        await worker.start(run_once=run_once, with_healthcheck=with_healthcheck)
    except asyncio.CancelledError:
        # It was told to stop, and has.
        print(f"Worker {worker.name!r} stopped!")


def _first(error: BaseException) -> BaseException:
    """The error inside of what the worker's tasks were ended by together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
