"""What the demo tells a person: how it goes, what the containers wrote, and how to go on."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

if TYPE_CHECKING:
    from prefect_jobs.deployments.demo_processes import Background


class Teller:
    """Plain lines with the seconds since the start; on a terminal also what is being waited for."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True)
        self._errors = Console(soft_wrap=True, stderr=True)
        self._status = Status("", console=self._console, spinner="line")
        self._started = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While it lasts, a terminal shows what is being waited for."""
        with self._status:
            yield

    def wait_for(self, what: str) -> None:
        """Name what is being waited for."""
        self._status.update(Text(f"waiting for {what}"))

    def step(self, text: str) -> None:
        """Something is done."""
        self.text(f"{time.monotonic() - self._started:5.1f} s  {text}")

    def text(self, text: str) -> None:
        """Print a text as it is."""
        self._console.print(text, markup=False, highlight=False, emoji=False)

    def report(self, title: str, lines: list[str]) -> None:
        """Print what a container wrote."""
        self.text(f"\n---- {title} ".ljust(80, "-") + "\n" + "\n".join(lines))

    def problem(self, message: str, background: list[Background], home: Path) -> None:
        """Print what went wrong, what the background processes wrote last, and what to do."""
        parts = [f"\nThe demo failed: {message}"]
        for each in background:
            lines = indent("\n".join(each.tail()), "    ")
            parts.append(f"The last lines of the {each.name}, whole in {each.log}:\n\n{lines}")
        if background:
            parts.append(f"Run it again; if it fails in the same way, remove {home} to begin anew.")
        self._errors.print("\n\n".join(parts), markup=False, highlight=False, emoji=False)


def how_to_go_on(home: Path, example: Path, url: str, foreign: list[str]) -> str:
    """How to open the UI on what the demo did, and how to run the same search in Docker.

    ``url`` is where the home's profile has its server; ``foreign`` are the Prefect settings of the person's own
    environment, which would win over those of the home.
    """
    prefect, jobs = _program("prefect"), _program("prefect-jobs")
    settings = f"export PREFECT_HOME={shlex.quote(str(home))}"
    if foreign:
        settings = f"unset {' '.join(foreign)}\n    {settings}"
    extra = "" if find_spec("aiodocker") and find_spec("prefect_docker") else "pip install 'prefect-jobs[docker]'\n    "
    return f"""
The search completed; nothing is left running. To see it in the Prefect UI, start a server on what they left:

    {settings}
    {prefect} server start

and open {url}/runs

To run the same search in Docker, keep that server, and in a second terminal build the image and start a worker:

    {settings}
    {extra}docker build -t iris:1 {shlex.quote(str(example))}
    {prefect} worker start --pool jobs

Then, in a third one, say where, and change nothing else:

    {settings}
    {jobs} run pipeline/search -p where=docker --watch
"""


def _program(name: str) -> str:
    """A program of this Python's environment, by its path where the shell would not find it."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found is not None and Path(found) == own else shlex.quote(str(own))
