"""The figures as a Markdown table, and its place in a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Conditions, Memory, Results
from benchmarks.goals import MIB, goals
from benchmarks.summary import Summary, added, held, summary

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
_NONE, _NOT = "–", "not measured"


def markdown(results: Results) -> str:
    """Table, notes, goals and conditions."""
    peers = [(peer, summary(peer)) for peer in results.peers]
    head = ["", *(each.title for _, each in peers)]
    lines = [_row(head), _row(["---", *["---:"] * len(peers)])]
    lines += [_row([words, *(figure(each) for _, each in peers)]) for words, figure in _ROWS.items()]
    notes = [f"- {peer.title}: {note}." for peer, _ in peers for note in peer.notes]
    reached = [f"- {'✓' if goal.reached else '✗'} {goal.wanted}: {goal.seen}" for goal in goals(results)]
    parts = [lines, notes]
    parts += [["Goals of the project's own worker, ✓ reached or ✗ not:", "", *reached]] if reached else []
    parts += [[_conditions(results.conditions, len(results.peers[0].rounds))]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def write(page: Path, results: Results) -> None:
    """Put it into a page, between its marks."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}: put them where the table goes")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _full(each: Summary) -> str:
    if each.full_throughput is None:
        return _NOT
    return f"{each.full_throughput:.0f} ({each.full_runs} at {each.full_at_once})"


def _loaded(each: Summary) -> str:
    runs, at_once = each.full_runs or each.runs, each.full_at_once or each.at_once
    return f"{each.loaded:.1f}, at most {each.loaded_most:.1f} ({runs} at {at_once})"


def _mib(memory: Memory | None, figure: Callable[[Memory], float], digits: int = 0) -> str:
    if memory is None:
        return _NOT
    return f"{figure(memory) / MIB:.{digits}f}" if figure(memory) else _NONE


def _held(memory: Memory | None) -> str:
    return _mib(memory, held) + (f" ({memory.at_once} at once)" if memory else "")


_ROWS: dict[str, Callable[[Summary], str]] = {
    "Runs a minute": lambda each: f"{each.throughput:.0f} ({each.runs} at {each.at_once})",
    "Runs a minute at full load": _full,
    "Seconds from creation to container start, unloaded, median": lambda each: f"{each.single:.2f}",
    "The same at full load, median and most": _loaded,
    "CPU seconds of the supervisor for one run": lambda each: f"{each.supervisor_cpu:.2f}",
    "CPU seconds of the server for one run": lambda each: f"{each.server_cpu:.2f}" if each.server_cpu else _NONE,
    "CPU seconds of Postgres for one run": lambda each: f"{each.postgres_cpu:.2f}" if each.postgres_cpu else _NONE,
    "MiB of the supervisor, idle": lambda each: _mib(each.few, lambda memory: memory.supervisor_idle),
    "MiB of the supervisor, few sleeping containers": lambda each: _held(each.few),
    "MiB of the supervisor, many sleeping containers": lambda each: _held(each.many),
    "MiB that one of many adds": lambda each: _mib(each.many, added, 2),
    "MiB of the server, Postgres apart": lambda each: _mib(each.many, lambda memory: memory.server),
    "Requests to Prefect's API for one run": lambda each: _NONE if each.requests is None else f"{each.requests:.1f}",
}


def _conditions(conditions: Conditions, rounds: int) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in conditions.versions.items())
    loads = " ".join(f"{load:.2f}" for load in conditions.load_average)
    return (
        f"Measured on {conditions.date} in one go, {rounds} rounds in turn, medians; {conditions.cores} cores "
        f"({conditions.machine}), {conditions.memory / (1 << 30):.0f} GiB, load average {loads} at the start. "
        f"{versions}."
    )
