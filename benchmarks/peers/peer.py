"""What every peer offers the benchmark: start it, ask it for runs, wait for their ends, know its processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.cgroups import Cgroup
from benchmarks.measure import Attributes
from benchmarks.servers import Cluster, PrefectServer

Kind = Literal["noop", "sleep"]
COMMANDS: dict[Kind, list[str]] = {
    "noop": ["true"],
    # It ends well as soon as it is asked to.
    "sleep": ["sh", "-c", "trap 'exit 0' TERM; sleep 900 & wait"],
}


@dataclass(frozen=True)
class Ground:
    """What all peers stand on."""

    folder: Path
    """Temporary."""
    cache: Path
    """Kept for the next time."""
    cluster: Cluster
    image: str
    """The no-op container's."""
    counts: tuple[int, ...]
    """Of how many runs batches will be."""


@dataclass(frozen=True)
class Asked:
    """A run that was asked for."""

    key: str
    """By which its container is known."""
    moment: float
    """When it was asked for, in Unix seconds."""


class Serving(ABC):
    """A peer that is up."""

    def __init__(self, supervisor: list[int], server: list[int]) -> None:
        self.supervisor = supervisor
        """Processes that look after runs; all below them counts too."""
        self.server = server
        """Processes that keep the runs' state, Postgres apart."""
        self.asked: set[str] = set()
        """The keys of all runs that were asked for."""
        self.prefect: PrefectServer | None = None
        self.cgroup: Cgroup | None = None
        """Of the containers, where what runs in them is the supervisor's too."""

    @abstractmethod
    async def start(self, kind: Kind, count: int) -> list[Asked]:
        """Ask for so many runs."""

    @abstractmethod
    async def ended(self, asked: list[Asked]) -> float:
        """Wait until all of them have ended; when the last one did, in Unix seconds.

        Raises:
            RuntimeError: one of them did not end well.
        """

    @abstractmethod
    def key(self, attributes: Attributes) -> str | None:
        """The run that a container belongs to, by the attributes that the engine's events give it."""


class Peer(ABC):
    """Something that runs containers."""

    name: str
    title: str
    slow: bool = False
    """Takes seconds of a core for each run: it is asked for fewer."""
    most: int | None = None
    """How many sleeping containers at once it is asked for at most; None for as many as anyone."""
    notes: tuple[str, ...] = ()

    async def prepare(self, ground: Ground) -> None:  # noqa: B027 - most need nothing.
        """Make what can be made before anything is measured."""

    @abstractmethod
    def up(self, ground: Ground, at_once: int, *, counting: bool = False) -> AbstractAsyncContextManager[Serving]:
        """Start it with all that it needs, for so many runs at once; stop all of it in the end.

        ``counting``: its Prefect server writes down every request.
        """

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """What of it was measured."""
