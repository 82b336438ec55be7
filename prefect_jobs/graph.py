"""The graph of a pipeline's steps: which needs which."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter


def find_cycle(needs: Mapping[str, Collection[str]]) -> list[str] | None:
    """Steps that wait for each other, each for the next and the last for the first; None where nobody does."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))[:-1]
    return None
