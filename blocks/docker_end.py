"""How a container of a Docker engine ended: from what the engine says of it to an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_jobs.blocks.docker_connection import Heard, Signal, Watch
from prefect_jobs.blocks.docker_frames import nanoseconds
from prefect_jobs.blocks.docker_usage import Usage
from prefect_jobs.outcome import Outcome, Reason, signal_name, signal_words

# What somebody sends who wants a container to end; all others are the program's own business.
_ENDING = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT)
# An engine that goes down gives its containers ten seconds or so, and is away only then.
_GOING_DOWN = timedelta(seconds=60)
_COMING_UP = timedelta(seconds=10)
# What an engine writes down for a container whose end it did not see.
_UNSEEN = 255
_KILLED = 128 + signal.SIGKILL
_OOM_SECONDS = 1.0


def moment(stamp: str) -> datetime | None:
    """A time as the engine writes it; None for its zero."""
    if stamp.startswith("0001"):
        return None
    return datetime.fromtimestamp(nanoseconds(stamp.encode()) / 1e9, UTC)


async def settled(found: dict[str, Any], heard: Heard) -> None:
    """Wait a moment where the engine may yet say that a container was killed for memory.

    It learns of that and of the end in either order, and writes down only what it learnt before the end.
    """
    state, limit = found["State"], found["HostConfig"].get("Memory")
    if limit and state["ExitCode"] == _KILLED and not state.get("OOMKilled") and not heard.signals:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OOM_SECONDS):
                await heard.out_of_memory.wait()


def lost(attempt: int) -> Outcome:
    """The end of a container that is not there any more."""
    return Outcome(
        reason=Reason.LOST,
        attempt=attempt,
        message="somebody removed the container while it ran; start the run again",
    )


def ended(attempt: int, found: dict[str, Any], watch: Watch, usage: Usage, *, told_to_stop: bool) -> Outcome:
    """The end of a container that the engine describes (Engine API, "Inspect a container")."""
    state = found["State"]
    code, finished = int(state["ExitCode"]), moment(state["FinishedAt"])
    reason, message = Reason.of(code), str(state.get("Error") or "") or signal_words(code)
    peak = usage.peak_memory
    if told_to_stop:
        message = "it was told to stop"
    elif code != 0 and (state.get("OOMKilled") or watch.heard.out_of_memory.is_set()):
        limit = int(found["HostConfig"].get("Memory") or 0)
        # It was killed because it reached the limit, perhaps between two looks at it.
        peak = max(peak or 0, limit) or None
        reason, message = Reason.OUT_OF_MEMORY, _out_of_memory(limit, peak)
    elif code != 0 and (why := _from_outside(code, finished, watch)):
        reason, message = Reason.KILLED, f"{why}; it ended with exit code {code}"
    return Outcome(
        reason=reason,
        attempt=attempt,
        exit_code=code,
        message=message,
        image=found["Image"],
        started=moment(state["StartedAt"]),
        ended=finished,
        cpu_seconds=usage.cpu_seconds,
        peak_memory=peak,
    )


def _out_of_memory(limit: int, peak: int | None) -> str:
    used = "" if peak is None else f" (it used up to {peak / 2**20:.0f} MiB)"
    if limit:
        what = f"at its limit of {limit / 2**20:.0f} MiB{used}; give the job a shape with more memory"
    else:
        what = f"because the machine ran out of memory{used}; give the job a shape with a limit"
    return f"the kernel killed it {what}"


def _from_outside(code: int, finished: datetime | None, watch: Watch) -> str:
    """Who ended it, where that was not the program itself; empty where nothing says so."""
    sent = next((each.number for each in watch.heard.signals if _ended_it(each, finished)), None)
    if sent:
        return (
            f"the Docker engine sent it signal {signal_name(sent)}, for somebody or because the engine itself stopped"
        )
    if _went_down(finished, watch) and (code == _UNSEEN or Reason.of(code) is Reason.KILLED):
        return "the Docker engine stopped or restarted, and took the container with it"
    return ""


def _ended_it(sent: Signal, finished: datetime | None) -> bool:
    """Whether a signal may be what ended the container: a program may heed one and go on."""
    return sent.number in _ENDING and (finished is None or finished - sent.sent <= _GOING_DOWN)


def _went_down(finished: datetime | None, watch: Watch) -> bool:
    """Whether the engine went away when the container ended; it ends its containers before it goes."""
    if finished is None or watch.engine_left is None:
        return False
    return watch.engine_left - _GOING_DOWN <= finished <= (watch.engine_back or datetime.now(UTC)) + _COMING_UP
