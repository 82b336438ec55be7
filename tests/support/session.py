"""What the workers of pytest-xdist share: a folder, and locks in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """The folder of the test session; it is removed at its end."""
    return Path(os.environ["PREFECT_JOBS_TEST_ROOT"])


@contextmanager
def once(name: str) -> Iterator[bool]:
    """Whether this is the first in the session to come here; the others wait until the first is done."""
    with (root() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = root() / f"{name}.done"
        yield not done.exists()
        done.touch()
