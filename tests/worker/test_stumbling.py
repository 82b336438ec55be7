"""A worker that stumbles over a run, for a reason that is none of the run's own, does not do so for ever."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from reach import ended, lines
from workers import worker

from prefect_jobs import Job

# The runs of one job meet an error that nobody foresaw.
STUMBLING = """
import asyncio, sys
from prefect_jobs.deployments import worker, worker_runs

class Flows(worker_runs.Flows):
    async def of(self, client, flow_run):
        if "broken" in flow_run.tags:
            raise LookupError("the password is swordfish")
        return await super().of(client, flow_run)

worker_runs.Flows = Flows
asyncio.run(worker.JobsWorker(sys.argv[1]).start())
"""


@pytest.fixture
def name(prefect_api: str) -> str:
    """The name of a job and of its work pool, which no other test has."""
    return f"own-{uuid4().hex[:8]}"


async def test_a_run_that_the_worker_stumbles_over_each_time_crashes_and_says_what_to_do(
    name: str, tmp_path: Path
) -> None:
    script = tmp_path / "stumbling.py"
    script.write_text(STUMBLING)
    broken = Job(name=f"{name}-broken", command=["true"], tags=["broken"])
    sound = Job(name=name, command=["echo", "sound"])
    for job in (broken, sound):
        await job.apply(work_pool=name)
    async with worker("python", script, name) as started:
        # What was left in the middle is looked for at once.
        run = await ended(await broken.run(), 40)
        said = str(run.flow_run.state and run.flow_run.state.message)
        assert (run.state, run.attempts) == ("Crashed", [])
        assert "tried to begin or go on with the run 3 times" in said
        assert "a LookupError; the log of the worker shows where" in said
        assert "swordfish" not in said
        assert started.said.count("LookupError: the password is swordfish") == 3
        after = await ended(await sound.run())
        assert (after.state, await lines(after)) == ("Completed", ["sound"])
