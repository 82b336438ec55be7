"""A demo in a process of its own, and what runs in its home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

Start = Callable[..., "Demo"]


class Demo:
    """A demo that keeps its state in a folder of the test's own; the Python environment is shared with other demos."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        code = (
            f"from pathlib import Path; from prefect_jobs.deployments.demo import demo; exit(demo(Path({str(home)!r})))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def output(self, seconds: float = 150) -> str:
        """All that it printed, once it has ended."""
        return self.process.communicate(timeout=seconds)[0]

    def running(self) -> dict[int, str]:
        """The command lines of all processes that work in its home, but its own, by process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_text().replace("\0", " ")
                known_by = command + (folder / "environ").read_bytes().decode(errors="replace")
                if str(self.home) in known_by and int(folder.name) != self.process.pid:
                    found[int(folder.name)] = command
        return found

    def wait_for(self, program: str, seconds: float = 120) -> None:
        """Wait until a program runs in its home."""
        deadline = time.monotonic() + seconds
        while not any(program in command for command in self.running().values()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"{program} never ran; the demo said:\n{self.output()}")
            time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
