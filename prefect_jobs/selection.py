"""Choosing the best of several results by a number in each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from prefect_jobs.references import part_of

Mode = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best of some results."""

    index: int
    metric: int | float


def metric_of(result: Any, key: str) -> int | float | None:
    """The number at a dotted key of a result; None where there is none.

    Neither NaN nor an infinity is one, nor an integer that is larger than any float: nobody can work with it.
    """
    try:
        value = part_of(result, key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except (LookupError, OverflowError):
        return None
    return value if is_number else None


def best_of(results: Iterable[tuple[int, Any]], key: str, mode: Mode) -> Choice | None:
    """The result with the largest or smallest number, by its index; of several the one with the lowest index."""
    best: Choice | None = None
    for index, result in sorted(results, key=lambda each: each[0]):
        metric = metric_of(result, key)
        if metric is None:
            continue
        if best is None or (metric > best.metric if mode == "max" else metric < best.metric):
            best = Choice(index, metric)
    return best


def what_is_wrong(result: Any, key: str) -> str:
    """Why a result has no number at a key, for a person."""
    if result is None:
        return "left no result: no result.json, or none that could be read; its log says why"
    try:
        value = part_of(result, key)
    except LookupError:
        return f"has no {key!r} in its result.json"
    is_large = isinstance(value, int) and not isinstance(value, bool)
    words = "too large a number" if is_large else "no number"
    return f"has {key} = {str(value)[:40]!r} in its result.json, which is {words}"
