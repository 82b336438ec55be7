"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.peer import Peer


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds."""

    rounds: int = 3
    runs: int = 40
    """No-op runs of a batch."""
    slow_runs: int = 12
    """The same for peers that take seconds of a core for each run."""
    at_once: int = 8
    full_runs: int = 100
    full_at_once: int = 25
    """Full load, for peers that are not slow."""
    singles: int = 4
    """Single runs in each round, one after the other."""
    pause: float = 1.3
    """Between them; no multiple of any peer's polling."""
    many: int = 200
    """Sleeping containers at once, for the peers that can."""
    warm_ups: int = 2

    def runs_of(self, peer: Peer) -> int:
        """How many runs a batch of a peer has."""
        return min(self.runs, self.slow_runs) if peer.slow else self.runs

    def many_of(self, peer: Peer) -> int:
        """How many sleeping containers at once a peer is asked for."""
        return self.many if peer.most is None else min(self.many, peer.most)

    def numbers_of(self, peer: Peer) -> list[int]:
        """With how many sleeping containers at once a peer's memory is measured."""
        return sorted({min(self.at_once, self.many_of(peer)), self.many_of(peer)})

    def counts(self, peer: Peer) -> tuple[int, ...]:
        """All numbers of runs that a peer is asked for at once."""
        fewest, most = self.numbers_of(peer)[0], self.many_of(peer)
        return tuple(sorted({1, self.runs_of(peer), self.full_runs, fewest, most - fewest} - {0}))
