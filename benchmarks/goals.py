"""What the project's own worker is measured against, reached or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figures import Results
from benchmarks.summary import Summary, added, held, summary

MIB = 1 << 20


@dataclass(frozen=True)
class Goal:
    """One goal, and what was seen."""

    wanted: str
    seen: str
    reached: bool


def goals(results: Results) -> list[Goal]:
    """All goals for which the peers that they name were measured."""
    peers = {peer.name: summary(peer) for peer in results.peers}
    if "ours" not in peers:
        return []
    ours = peers["ours"]
    found = [
        Goal(
            "under 0.7 s from creation to container start when unloaded",
            f"{ours.single:.2f} s",
            ours.single < 0.7,
        ),
    ]
    if many := ours.many:
        seen = f"{added(many) / MIB:.2f} MiB at {many.at_once} at once"
        found.append(Goal("each of many sleeping runs at no more than 1 MiB above the base", seen, added(many) <= MIB))
    return [*_throughput(ours, peers), *found, *_against_others(ours, peers)]


def _throughput(ours: Summary, peers: Mapping[str, Summary]) -> list[Goal]:
    found = []
    if other := peers.get("airflow"):
        seen = f"{ours.throughput:.0f} and {other.throughput:.0f} runs a minute"
        found.append(Goal("more throughput than Airflow", seen, ours.throughput > other.throughput))
        if ours.full_throughput and other.full_throughput:
            seen = f"{ours.full_throughput:.0f} and {other.full_throughput:.0f} runs a minute"
            better = ours.full_throughput > other.full_throughput
            found.append(Goal(f"the same at {ours.full_at_once} at once", seen, better))
    if other := peers.get("bare"):
        share = ours.throughput / other.throughput
        found.append(Goal("at least 60 % of the throughput of the Docker API alone", f"{share:.0%}", share >= 0.6))
    return found


def _against_others(ours: Summary, peers: Mapping[str, Summary]) -> list[Goal]:
    found = []
    other = peers.get("airflow")
    if other and other.few and ours.few and other.few.at_once == ours.few.at_once:
        share = held(ours.few) / held(other.few)
        seen = f"{share:.2f} of it at {ours.few.at_once} at once, both without their servers"
        found.append(Goal("the supervisor below a quarter of Airflow's memory", seen, share < 0.25))
    if other := peers.get("docker"):
        share = other.supervisor_cpu / ours.supervisor_cpu
        found.append(Goal("at most 1/20 of the Docker worker's CPU for one run", f"1/{share:.0f} of it", share >= 20))
    return found
