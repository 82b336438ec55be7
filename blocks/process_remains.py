"""What is left of a process whose shim is gone or does not answer: found by what the shim wrote down, and killed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from prefect_jobs.blocks import shim

_SECONDS = 5.0


def started(folder: Path) -> dict[str, Any]:
    """What is written down about the start of the attempt in a folder; nothing where it was never started."""
    try:
        content: dict[str, Any] = json.loads((folder / "started.json").read_text())
    except FileNotFoundError:
        return {}
    return content


def kill_remains(folder: Path) -> None:
    """Kill the shim of the attempt in a folder, its process and all that this started, within five seconds."""
    marks = started(folder)
    if not marks:
        return
    deadline = time.monotonic() + _SECONDS
    while (remains := _remains(folder, marks)) and time.monotonic() < deadline:
        for process in remains:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def _remains(folder: Path, marks: dict[str, Any]) -> list[psutil.Process]:
    """The shim, the session of its process, and what left that session with the attempt's environment.

    The kernel gives numbers of processes again. The session is the attempt's if its leader is the process that was
    started, or, when that has ended, as far as it works in the attempt's folder.
    """
    leader = marks.get("process")
    leader_lives = _is(leader)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            in_session = leader is not None and os.getsid(process.pid) == leader["pid"]
            if (
                (process.pid == (marks.get("shim") or {}).get("pid") and _is(marks["shim"]))
                or (in_session and (leader_lives or Path(process.cwd()).is_relative_to(folder)))
                or Path(process.environ().get("JOB_OUTPUT_DIR", "/")).is_relative_to(folder)
            ):
                found.append(process)
    return found


def _is(mark: dict[str, Any] | None) -> bool:
    """Whether a process that the shim wrote down is still the one of its number."""
    return mark is not None and mark["start_time"] is not None and shim.start_time(mark["pid"]) == mark["start_time"]
