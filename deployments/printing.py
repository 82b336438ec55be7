"""What the command line and a watched run print. Importing it imports neither Prefect nor what draws tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, Log


def nothing(_: object) -> None:
    """Print nothing."""


def print_log(log: Log) -> None:
    """Print a log record with its local time."""
    print(f"{log.timestamp.astimezone():%H:%M:%S.%f}"[:-3], log.message, flush=True)


def print_state(flow_run: FlowRun) -> None:
    """Print a run's name and state."""
    print(f"{flow_run.name}: {state_of(flow_run)}", flush=True)


def print_hint(words: str) -> None:
    """Print what a run waits for."""
    print(words, flush=True)


def state_of(flow_run: FlowRun) -> str:
    """A run's state."""
    state = flow_run.state
    return "Unknown" if state is None else state.name or state.type.value.title()


def show_rows(rows: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    """Print rows as a table or as JSON; without any, a table's place takes a sentence."""
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
        return
    print(as_table(rows) if rows else empty)


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table, each in a line of its own."""
    from rich.console import Console
    from rich.table import Table

    # What only some rows have, such as a note, is a column too.
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*("" if (value := row.get(name)) is None else str(value) for name in names))
    # A row stays a row: a terminal wraps it by itself, and a pipe does not care.
    needed = Console(width=10_000).measure(table).maximum
    console = Console(width=needed, soft_wrap=True)
    with console.capture() as shown:
        console.print(table)
    return shown.get().rstrip("\n")


def without_links(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what only a browser has a use for."""
    return [{name: value for name, value in row.items() if name != "link"} for row in rows]
