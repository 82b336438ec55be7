"""A flow's process that is told to end when its container is gone already still says how the run ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from cancelling import LONG, WAYS, Place, left_by
from reach import first_line

# Tells itself to end once it has only the run's end to report, and waits, as it does for Prefect's API.
LATE = """
import asyncio, os, runpy, signal, sys
from prefect_jobs.flows import job

run_now = job.run_now

async def told(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.5)
    return await run_now(*args)

job.run_now = told
sys.argv = ["engine", sys.argv[1]]
runpy.run_module("prefect.engine", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("command", "end"),
    [
        (["sh", "-c", "echo up; exit 3"], ("Failed", "exit code 3\nup")),
        (LONG, ("Cancelled", "cancelled through Prefect; no container of it is left")),
    ],
)
async def test_a_process_that_is_told_to_end_late_says_how_its_run_ended(
    command: list[str], end: tuple[str, str], prefect_api: str, busybox: str, tmp_path: Path
) -> None:
    script = tmp_path / "late.py"
    script.write_text(LATE)
    run = await Place(None, "process", busybox).start(command, retries=0)
    supervisor = await asyncio.create_subprocess_exec(sys.executable, script, str(run.id))
    await first_line(run)
    if command == LONG:
        await WAYS["interface"](run)
    await asyncio.wait_for(supervisor.wait(), 60)
    await run.refresh()
    assert run.flow_run.state is not None
    assert (run.state, run.flow_run.state.message) == end
    assert left_by(run.id) == []
