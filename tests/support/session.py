"""What the workers of pytest-xdist share: a folder, locks in it, and processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """The folder of the test session; it is removed at its end."""
    return Path(os.environ["PREFECT_JOBS_TEST_ROOT"])


@contextmanager
def once(name: str) -> Iterator[bool]:
    """Whether this is the first in the session to come here; the others wait until the first is done."""
    with alone(name):
        done = root() / f"{name}.done"
        yield not done.exists()
        done.touch()


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Whoever else comes here waits until this is left."""
    with (root() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start_for_session(name: str, *command: str | Path, **environment: str) -> None:
    """Start a process that the controlling process stops at the end of the session."""
    with (root() / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=root(), env={**os.environ, **environment}, start_new_session=True
        )
    (root() / f"{name}.pid").write_text(str(process.pid))
