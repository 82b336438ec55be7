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
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client

from prefect_jobs.flows.cancellation import end_cancelled
from prefect_jobs.flows.ending import Remains
from prefect_jobs.flows.insisting import insist

# Shorter grace periods end in time; a successor costs some seconds of CPU.
_LONG_GRACE_SECONDS = 20.0


def leave_successor(run_id: UUID, grace_seconds: float) -> None:
    """Start a process that ends the run should this one be killed while its container is being stopped."""
    if grace_seconds < _LONG_GRACE_SECONDS:
        return
    words = [str(run_id), str(os.getpid()), str(time.time() + grace_seconds)]
    subprocess.Popen(
        [sys.executable, "-m", __name__, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


async def succeed(run_id: UUID, deadline: float) -> None:
    """Stop the run's container by a deadline (seconds since 1970), remove it, and let the run end Cancelled."""
    async with get_client() as client:
        flow_run = await insist(lambda: client.read_flow_run(run_id), "read a run")
        await Remains(flow_run).end(client, max(0.0, deadline - time.time()))
        await end_cancelled(client, run_id)


def main(run_id: str, predecessor: str, deadline: str) -> None:
    """Wait for the end of the process before this one; what it did itself is not done twice."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(predecessor)).wait()
    asyncio.run(succeed(UUID(run_id), float(deadline)))


if __name__ == "__main__":
    logging.disable()
    main(*sys.argv[1:])
