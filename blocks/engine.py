"""The contract that every infrastructure fulfils; tests/contract holds all of them to it.

An `Engine` starts containers and finds them again; a `Container` is one attempt of a run. Nothing here decides what an
outcome means for a run, retries anything on the job's behalf, or talks to Prefect's API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect_jobs.blocks.files import NOTHING_STAGED, Folder, Left, Staged
from prefect_jobs.outcome import Outcome
from prefect_jobs.spec import ContainerSpec, Identity, PullPolicy

Stream = Literal["stdout", "stderr"]
Tell = Callable[[str], None]
"""Tells the person who watches the run what the engine is waiting for."""

LONGEST_LINE = 1 << 20
"""How many bytes of a line are held; a longer line comes as several of this length, and what is left over."""


FENCE: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("prefect_jobs_fence", default=None)
"""What whoever starts a container waits for just before, within a run's context."""


async def may_start() -> None:
    """Wait until a container may be started; for ever, where its run has become another's in the meantime.

    An engine's unique names keep two from starting the same attempt, but only until its container is removed.
    """
    if (passed := FENCE.get()) is not None:
        await passed()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a container wrote, without its line break."""

    timestamp: datetime
    """When the engine received it, with a time zone; later than that of the line before it (see `moments`)."""
    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A container that this project started, as the engine lists it."""

    run_id: UUID
    attempt: int
    job: str
    running: bool
    installation: str
    """The installation of Prefect that its run belongs to."""
    kept_until: datetime | None = None
    """Until when it stays because it failed and its job asked for a look at it; None where it may go with its run."""

    @property
    def identity(self) -> Identity:
        """As much of its attempt's identity as finds it again."""
        return Identity(job=self.job, version="", run_id=self.run_id, run_name="", attempt=self.attempt)

    @property
    def is_kept(self) -> bool:
        """Whether it must stay for a look."""
        return self.kept_until is not None and self.kept_until > datetime.now(UTC)


def kept_until(keep_seconds: float | None, exit_code: int, ended: datetime | None) -> datetime | None:
    """Until when a container stays that has ended so; only one that failed is kept."""
    if not keep_seconds or exit_code == 0 or ended is None:
        return None
    return ended + timedelta(seconds=keep_seconds)


class Container(ABC):
    """One attempt of a run, on its engine."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where a person finds it, as a sentence's object: a container by its name, a folder by its path."""

    @property
    @abstractmethod
    def told_to_stop(self) -> bool:
        """Whether it was told to stop while it ran, as far as is known; asked when it has ended."""

    @abstractmethod
    def logs(self, after: datetime | None = None) -> AsyncIterator[LogLine]:
        """Its lines in order, from the first one later than ``after``, until the stream has truly ended.

        Picks up again after a dropped connection, without losing or doubling a line. A line has the same time in
        every reading, so that whoever goes on after the time of a line gets exactly those that follow it.
        """

    @abstractmethod
    async def wait(self) -> Outcome:
        """Wait until it has ended and say how. An engine that does not answer is waited for."""

    @abstractmethod
    async def age(self) -> float:
        """Seconds since it started, by its engine's own clock; 0 where it never did, or is not there."""

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None:
        """Send SIGTERM, then SIGKILL after the grace period; return when it no longer runs."""

    @abstractmethod
    async def left(self, folder: Folder, spool: Path, only: str | None = None) -> Left:
        """What it left in one of its folders, asked when it has ended; ``only`` one file, by its name below the folder.

        ``spool`` is a folder of this machine that may be filled for that, and that is emptied first. Nothing outside
        of the container's folder is ever read, wherever a link there leads.

        Raises:
            InfrastructureError: there is no room for it on this machine, or the container is gone; of one that is gone
                ``only`` one file is none.
        """

    @abstractmethod
    async def remove(self) -> None:
        """Remove what the attempt left on the engine, killing it first if it runs. Removing twice is no error."""


class Engine(ABC):
    """A connection to where containers run; made by `Infrastructure.engine`."""

    @abstractmethod
    async def pin(self, image: str, pull_policy: PullPolicy) -> str | None:
        """The image by digest, as the pull policy would find it; None where images mean nothing.

        Raises:
            ImageUnavailable: nobody has the image, or the registry refuses it.
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    async def launch(
        self,
        spec: ContainerSpec,
        identity: Identity,
        secrets: Mapping[str, str],
        tell: Tell,
        staged: Staged = NOTHING_STAGED,
    ) -> Container:
        """Start the container of an attempt, or attach to the one that is there already.

        Calling it twice, from two processes, after any crash, never makes two. ``secrets`` are the values of
        ``spec.secrets``, which appear nowhere else: environment variables, or files that only the container's user may
        read, which are there when it starts and gone when it has ended. What is ``staged`` is in its folders when it
        starts; the engine may move it there.

        Raises:
            ImageUnavailable: the image cannot be had; trying again does not help.
            InfrastructureError: the engine refused the container.
        """

    @abstractmethod
    def container(self, identity: Identity) -> Container:
        """The container of an attempt by its identity, whether it is there or not; the engine is not asked."""

    async def discard(self, identity: Identity) -> None:
        """Remove whatever there is of an attempt, running or not; for a launch that was given up half-way."""
        await self.container(identity).remove()

    @abstractmethod
    async def containers(self) -> list[Found]:
        """All containers that this project started there, running or not."""

    @abstractmethod
    async def runs(self) -> dict[UUID, str]:
        """Every run of which anything is there, containers or not, with the installation of Prefect it belongs to."""

    @abstractmethod
    async def release(self, run_id: UUID) -> None:
        """Remove what a run leaves beyond its attempts, such as its checkpoint folder; what is kept stays as it is."""
