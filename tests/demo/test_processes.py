"""A background process ends with everything below it, and with it the work that needs it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from demos import runs

from prefect_jobs.deployments.demo_processes import Background, below, while_serving
from prefect_jobs.errors import InfrastructureError


async def _background(tmp_path: Path, script: str) -> Background:
    process = await asyncio.create_subprocess_exec("sh", "-c", script, start_new_session=True)
    return Background("helper", process, tmp_path / "helper.log")


async def _below(background: Background, count: int) -> list[int]:
    """The processes below it, once there are as many."""
    async with asyncio.timeout(10):
        while len(found := [process.pid for process in below(background.process.pid)]) < count:
            await asyncio.sleep(0.01)
    return found


async def test_processes_in_sessions_of_their_own_end_too(tmp_path: Path) -> None:
    background = await _background(tmp_path, "setsid sh -c 'sleep 300; :' & setsid sleep 300 & wait")
    found = await _below(background, 3)
    await background.stop()
    assert background.process.returncode is not None
    assert not [pid for pid in found if runs(pid)]


async def test_what_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    background = await _background(tmp_path, "trap '' TERM; setsid sleep 300 & sleep 300; :")
    found = await _below(background, 2)
    async with asyncio.timeout(10):
        await background.stop(grace_seconds=0.3)
        while any(map(runs, found)):
            await asyncio.sleep(0.01)
    assert background.process.returncode == -9


async def test_stopping_what_has_ended_is_no_error(tmp_path: Path) -> None:
    background = await _background(tmp_path, "exit 3")
    await background.process.wait()
    await background.stop()
    assert background.process.returncode == 3


async def test_stopping_what_ends_in_the_same_moment_is_no_error(tmp_path: Path) -> None:
    background = await _background(tmp_path, "exit 3")
    # The thread that waits for it has heard of its end, and the event loop has not.
    while Path(f"/proc/{background.process.pid}").exists():
        time.sleep(0.01)  # noqa: ASYNC251 - the loop shall not hear of it.
    assert background.process.returncode is None
    await background.stop()
    assert background.process.returncode == 3


async def test_work_ends_with_the_process_that_it_needs(tmp_path: Path) -> None:
    background = await _background(tmp_path, "exit 3")
    with pytest.raises(InfrastructureError, match="the helper ended by itself, with exit code 3"):
        await while_serving(asyncio.sleep(60), background, seconds=60, what="the work")


async def test_work_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    background = await _background(tmp_path, "exec sleep 60")
    work = asyncio.create_task(asyncio.sleep(60))

    async def wait_for_it() -> None:
        await work

    with pytest.raises(InfrastructureError, match=r"the work took longer than 0\.1 s"):
        await while_serving(wait_for_it(), background, seconds=0.1, what="the work")
    assert work.cancelled()
    await background.stop()


async def test_the_result_of_the_work_is_handed_on(tmp_path: Path) -> None:
    background = await _background(tmp_path, "exec sleep 60")
    assert await while_serving(asyncio.sleep(0, "done"), background, seconds=10, what="the work") == "done"
    await background.stop()


def test_the_processes_below_this_one_are_not_those_above() -> None:
    assert os.getpid() not in [process.pid for process in below(os.getpid())]
    assert os.getpid() in [process.pid for process in below(os.getppid())]
