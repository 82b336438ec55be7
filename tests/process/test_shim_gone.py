"""No process outlives its shim for long, and none is left beside the next attempt."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from bench import Bench, first_line

from prefect_jobs.blocks import process_container, shim
from prefect_jobs.blocks.process_remains import kill_remains
from prefect_jobs.outcome import Reason
from prefect_jobs.spec import Identity

Started = Callable[[Identity], dict[str, Any]]
Processes = Callable[[UUID], list[int]]

# In the process group, in a session of its own, and without the environment by which it would be found.
FAMILY = "sleep 60 & setsid sleep 60 & env -i sleep 60 & echo up; wait"


async def test_the_process_dies_with_its_shim(bench: Bench, started: Started) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh("echo up; while :; do sleep 0.05; done"), identity)
    await first_line(container)
    marks = started(identity)
    os.kill(marks["shim"]["pid"], signal.SIGKILL)
    outcome = await container.wait()
    assert outcome.reason is Reason.LOST
    await _gone(marks["process"]["pid"])


@pytest.mark.parametrize("way", ["remove", "discard", "release"])
async def test_what_a_killed_shim_leaves_is_killed_when_the_attempt_is_removed(
    bench: Bench, started: Started, processes_of: Processes, way: str
) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh(FAMILY), identity)
    await first_line(container)
    marks = started(identity)
    family = set(processes_of(identity.run_id)) | set(_session(marks["process"]["pid"]))
    assert len(family) == 4
    os.kill(marks["shim"]["pid"], signal.SIGKILL)
    await container.wait()
    await _gone(marks["process"]["pid"])
    if way == "remove":
        await container.remove()
    elif way == "discard":
        await bench.engine.discard(identity)
    else:
        await bench.engine.release(identity.run_id)
    for pid in family:
        await _gone(pid)


async def test_a_process_that_the_kernel_spared_is_killed_when_the_attempt_is_removed(
    bench: Bench, started: Started, first: Callable[[str], None]
) -> None:
    first("shim.dying_with = lambda parent: lambda: None")
    identity = bench.identity()
    # Neither its environment nor its working directory tells whose it is.
    container = await bench.launch(bench.sh("cd /; echo up; exec env -i sleep 60"), identity)
    await first_line(container)
    marks = started(identity)
    assert marks["process"]["start_time"] == shim.start_time(marks["process"]["pid"])
    os.kill(marks["shim"]["pid"], signal.SIGKILL)
    await container.wait()
    assert _lives(marks["process"]["pid"])
    await container.remove()
    await _gone(marks["process"]["pid"])


async def test_a_later_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mark = {"pid": stranger.pid, "start_time": (shim.start_time(stranger.pid) or 0) - 1}
        shim.write_whole(str(tmp_path / "started.json"), {"shim": mark, "process": mark})
        kill_remains(tmp_path)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_shim_that_does_not_answer_is_waited_for(bench: Bench, started: Started) -> None:
    identity = bench.identity()
    container = await bench.launch(bench.sh("echo up; sleep 0.5; echo end; exit 3"), identity)
    await first_line(container)
    pid = started(identity)["shim"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    # More than it can queue, so that connections are refused.
    ending = [asyncio.create_task(bench.end_of(container)) for _ in range(40)]
    await asyncio.sleep(1.5)
    assert not any(task.done() for task in ending)
    os.kill(pid, signal.SIGCONT)
    for ended in await asyncio.gather(*ending):
        assert (ended.outcome.exit_code, ended.texts) == (3, ["up", "end"])


async def test_a_shim_that_does_not_answer_is_killed_with_its_process(
    bench: Bench, started: Started, processes_of: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_container, "_ANSWER_SECONDS", 0.5)
    identity = bench.identity()
    container = await bench.launch(bench.sh("echo up; while :; do sleep 0.05; done"), identity)
    await first_line(container)
    marks = started(identity)
    os.kill(marks["shim"]["pid"], signal.SIGSTOP)
    await container.remove()
    for name in ("shim", "process"):
        await _gone(marks[name]["pid"])
    assert processes_of(identity.run_id) == []


async def test_a_shim_that_fails_says_so_and_takes_its_process_along(
    bench: Bench, first: Callable[[str], None], processes_of: Processes
) -> None:
    first("def broken(*_): raise RuntimeError('it broke')\nshim.Shim.loop = broken")
    identity = bench.identity(uuid4())
    container = await bench.launch(bench.sh("sleep 0.2 & wait $!; while :; do sleep 0.05; done & sleep 60"), identity)
    outcome = (await bench.end_of(container)).outcome
    assert outcome.reason is Reason.LOST
    assert "RuntimeError: it broke" in outcome.message
    assert processes_of(identity.run_id) == []


def _shim_of(container: Any) -> int:
    from prefect_jobs.blocks.process_remains import started

    return int(started(container.folder)["shim"]["pid"])


def _session(pid: int) -> list[int]:
    words = subprocess.run(["ps", "-o", "pid=", "-s", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in words.split()]


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def _gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while _lives(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        await asyncio.sleep(0.02)
