"""What is measured, as it is written to a JSON file: raw figures, from which table and chart are made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Figures(BaseModel):
    """Base of all figures: nothing may be changed or made up later."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(Figures):
    """CPU seconds (user and system) of process trees, since they were started or between two moments."""

    supervisor: float
    """What looks after the runs, with all processes that it starts for them."""
    server: float
    postgres: float
    containers: float | None = None
    """What runs in the containers, where that is the supervisor's too: a Prefect for each run."""

    def since(self, earlier: Usage) -> Usage:
        """What was used between two moments."""
        inside = None if self.containers is None or earlier.containers is None else self.containers - earlier.containers
        return Usage(
            supervisor=self.supervisor - earlier.supervisor,
            server=self.server - earlier.server,
            postgres=self.postgres - earlier.postgres,
            containers=inside,
        )


class Batch(Figures):
    """Runs that were created together."""

    runs: int
    at_once: int
    seconds: float
    """From when the first was asked for until the last had ended."""
    to_start: tuple[float, ...]
    """For each run, the seconds from when it was asked for until its container started."""
    used: Usage


class Round(Figures):
    """What was measured of a peer between its start and its end."""

    singles: tuple[float, ...]
    """Seconds from when a run was asked for until its container started; one after the other, nothing else to do."""
    batch: Batch
    full: Batch | None = None
    """At full load."""


class Memory(Figures):
    """Proportional set sizes of process trees, in bytes: shared pages are counted once, in shares."""

    at_once: int
    supervisor_idle: int
    supervisor: int
    server_idle: int
    server: int
    containers: int | None = None


class Requests(Figures):
    """Requests that a Prefect server took while runs were run, without those that created them."""

    runs: int
    requests: int
    by_route: dict[str, int]


class PeerFigures(Figures):
    """All that was measured of a peer."""

    name: str
    title: str
    rounds: tuple[Round, ...]
    memory: tuple[Memory, ...]
    requests: Requests | None = None
    notes: tuple[str, ...] = ()


class Conditions(Figures):
    """Where and when it was measured, and with what."""

    date: str
    machine: str
    cores: int
    memory: int
    """In bytes."""
    load_average: tuple[float, float, float]
    """At the start, over 1, 5 and 15 minutes."""
    versions: dict[str, str]


class Results(Figures):
    """One run of the benchmark."""

    conditions: Conditions
    peers: tuple[PeerFigures, ...]
