"""The best of several results: by a number, with ties decided and what has none left out."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_jobs.selection import Choice, best_of, metric_of, what_is_wrong


@pytest.mark.parametrize(("mode", "index", "metric"), [("max", 2, 0.9), ("min", 0, 0.5)])
def test_the_best_is_the_largest_or_the_smallest(mode: Any, index: int, metric: float) -> None:
    results = [(1, {"a": 0.7}), (0, {"a": 0.5}), (2, {"a": 0.9})]
    assert best_of(results, "a", mode) == Choice(index, metric)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_equals_the_first_one_is_the_best(mode: Any) -> None:
    assert best_of([(3, {"a": 1}), (1, {"a": 1.0}), (2, {"a": 1})], "a", mode) == Choice(1, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), True, "0.9", None, [1], {}, 10**400])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_no_number_never_wins(value: Any, mode: Any) -> None:
    assert best_of([(0, {"a": value}), (1, {"a": 0.1})], "a", mode) == Choice(1, 0.1)
    assert best_of([(0, {"a": value})], "a", mode) is None


def test_a_dotted_key_reaches_into_a_result() -> None:
    assert metric_of({"scores": [{"test": 3}]}, "scores.0.test") == 3


@pytest.mark.parametrize("result", [None, {}, {"scores": 3}, [], {"scores": [1]}])
def test_a_result_without_the_key_has_no_number(result: Any) -> None:
    assert metric_of(result, "scores.9") is None


def test_what_is_wrong_is_said() -> None:
    assert what_is_wrong(None, "a") == "left no result: no result.json, or none that could be read; its log says why"
    assert what_is_wrong({"b": 1}, "a") == "has no 'a' in its result.json"
    assert what_is_wrong({"a": "much"}, "a") == "has a = 'much' in its result.json, which is no number"
    assert what_is_wrong({"a": 10**400}, "a").endswith(" in its result.json, which is too large a number")
