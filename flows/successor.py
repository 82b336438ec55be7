"""A process that outlives a flow's process which is told to end, and finishes what that one may not get to do.

Prefect's runners kill a flow's process 30 seconds after they told it to end; a job may have a longer grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client

from prefect_jobs.flows.cancellation import end_cancelled, has_its_own_process
from prefect_jobs.flows.ending import Remains
from prefect_jobs.flows.insisting import run_now
from prefect_jobs.spec import Identity

# Shorter grace periods end in time; a successor costs some seconds of CPU.
_LONG_GRACE_SECONDS = 20.0
# How long it asks for a container that should be gone.
_LONGEST_SECONDS = 300.0


@contextmanager
def successor(identity: Identity, grace_seconds: float) -> Iterator[None]:
    """Have a process at hand that stops and removes the attempt's container should this one be killed meanwhile."""
    if grace_seconds < _LONG_GRACE_SECONDS or not has_its_own_process():
        yield
        return
    words = [str(identity.run_id), str(identity.attempt), str(os.getpid()), str(time.time() + grace_seconds)]
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def succeed(run_id: UUID, attempt: int, deadline: float) -> None:
    """Stop the attempt's container by a deadline (seconds since 1970), remove it, and let the run end Cancelled."""
    async with get_client() as client, asyncio.timeout(max(0.0, deadline - time.time()) + _LONGEST_SECONDS):
        flow_run = await run_now(client, run_id)
        await Remains(flow_run).end(client, max(0.0, deadline - time.time()), attempt)
        await end_cancelled(client, run_id)


def main(run_id: str, attempt: str, predecessor: str, deadline: str) -> None:
    """Wait for the end of the process before this one, which ends this one when all is done."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(predecessor)).wait()
    asyncio.run(succeed(UUID(run_id), int(attempt), float(deadline)))


if __name__ == "__main__":
    logging.disable()
    main(*sys.argv[1:])
