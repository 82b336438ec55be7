"""Supervisors that die: a flow run in a process of its own, as a worker runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

from prefect_jobs.deployments.runs import JobRun


async def supervise(run: JobRun, seconds: float | None = None) -> None:
    """Run the flow run in a process of its own; SIGKILL it after so many seconds, or wait for its end."""
    process = await start_supervisor(run)
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        await kill(process)


async def start_supervisor(run: JobRun) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect.engine", str(run.id),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


async def kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
