"""From raw figures to those that are shown: medians over the rounds, shares of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from benchmarks.figures import Batch, Figures, Memory, PeerFigures, Usage


class Summary(Figures):
    """What is shown of a peer; seconds, bytes, and runs a minute."""

    title: str
    runs: int
    at_once: int
    throughput: float
    single: float
    """Seconds to the container's start, with nothing else to do."""
    singles: int
    full_throughput: float | None
    full_runs: int | None
    full_at_once: int | None
    loaded: float
    """Seconds to the container's start at full load, where that was measured, else in the batch."""
    loaded_most: float
    supervisor_cpu: float
    """Seconds of CPU for one run, with what runs for it in the container."""
    server_cpu: float
    postgres_cpu: float
    memory: tuple[Memory, ...]
    requests: float | None

    @property
    def few(self) -> Memory | None:
        """With the smallest number of sleeping containers; None where it could not be measured."""
        return self.memory[0] if self.memory else None

    @property
    def many(self) -> Memory | None:
        """With the largest number of them."""
        return self.memory[-1] if self.memory else None


def added(memory: Memory) -> float:
    """What one run adds to an idle supervisor, in bytes."""
    return (held(memory) - memory.supervisor_idle) / memory.at_once


def held(memory: Memory) -> int:
    """What the supervisor holds, with what it put into the containers."""
    return memory.supervisor + (memory.containers or 0)


def summary(peer: PeerFigures) -> Summary:
    """What is shown of a peer."""
    batches = [each.batch for each in peer.rounds]
    fulls = [each.full for each in peer.rounds if each.full]
    singles = [seconds for each in peer.rounds for seconds in each.singles]
    loaded = [seconds for batch in fulls or batches for seconds in batch.to_start]
    return Summary(
        title=peer.title,
        runs=batches[0].runs,
        at_once=batches[0].at_once,
        throughput=_of_each(batches, _a_minute),
        single=median(singles),
        singles=len(singles),
        full_throughput=_of_each(fulls, _a_minute) if fulls else None,
        full_runs=fulls[0].runs if fulls else None,
        full_at_once=fulls[0].at_once if fulls else None,
        loaded=median(loaded),
        loaded_most=max(loaded),
        supervisor_cpu=_of_each(batches, lambda batch: _cpu(batch.used) / batch.runs),
        server_cpu=_of_each(batches, lambda batch: batch.used.server / batch.runs),
        postgres_cpu=_of_each(batches, lambda batch: batch.used.postgres / batch.runs),
        memory=peer.memory,
        requests=peer.requests.requests / peer.requests.runs if peer.requests else None,
    )


def _of_each(batches: Iterable[Batch], figure: Callable[[Batch], float]) -> float:
    return median(map(figure, batches))


def _a_minute(batch: Batch) -> float:
    return batch.runs / batch.seconds * 60


def _cpu(used: Usage) -> float:
    return used.supervisor + (used.containers or 0)
