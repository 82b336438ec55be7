"""What an attempt left in its store: the one list that readers trust, written last."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from prefect_jobs.model import Model
from prefect_jobs.outcome import Reason


def problem_with(name: str) -> str | None:
    """What keeps a name from being that of a file below a folder, or of an object below a prefix."""
    parts = name.split("/")
    if not name or "" in parts:
        return "is no relative path such as a/b.txt"
    if ".." in parts or "." in parts:
        return "leads out of its folder, or has . or .. in it"
    if "\0" in name:
        return "has a NUL byte in it"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return None


def _checked(name: str) -> str:
    if problem := problem_with(name):
        raise ValueError(f"{name!r} {problem}")
    return name


Name = Annotated[str, AfterValidator(_checked)]
"""A relative POSIX path that stays below its folder."""


class File(Model):
    """One file that is in the store, whole."""

    name: Name
    """Its path below the folder that was uploaded."""
    size: int = Field(ge=0)
    """In bytes."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of its content, in hexadecimal digits; None where the container put it there with a client of its own."""


class Skipped(Model):
    """One entry of the folder that is not in the store."""

    name: str
    """Its path below the folder, as far as it can be written down."""
    why: str
    """For a person: a link that leads out, a socket, …"""


class Manifest(Model):
    """What one attempt left behind, and how it ended."""

    job: str
    """The job's name."""
    run_id: str
    """The flow run's id."""
    version: str
    """The version of the job."""
    attempt: int = Field(ge=1)
    """Which attempt it was, from 1."""
    outcome: Reason
    """Why it ended."""
    exit_code: int | None = None
    """The exit code of the container, where it had one."""
    written: datetime
    """When everything it names was in the store."""
    files: list[File] = []
    """Every file, in the order of their names."""
    skipped: list[Skipped] = []
    """What was in the folder and is not in the store."""
