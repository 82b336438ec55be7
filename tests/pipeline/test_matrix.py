"""The runs of a matrix: all combinations, in one order, without those excluded, then those included."""

from __future__ import annotations

import time

import pytest
from pydantic import ValidationError

from prefect_jobs import Matrix


def test_the_last_parameter_changes_first() -> None:
    branches = Matrix(b=["x", "y"], a=[1, 2]).branches()
    assert branches == [{"b": "x", "a": 1}, {"b": "x", "a": 2}, {"b": "y", "a": 1}, {"b": "y", "a": 2}]


def test_what_is_excluded_is_left_out_and_what_is_included_comes_last() -> None:
    matrix = Matrix(a=[1, 2], b=[1, 2], exclude=[{"a": 1, "b": 2}, {"a": 2}], include=[{"a": 7}, {"c": 1}])
    assert matrix.branches() == [{"a": 1, "b": 1}, {"a": 7}, {"c": 1}]


def test_only_what_is_included_is_no_combination() -> None:
    assert Matrix(include=[{"a": 1}, {"a": 2}]).branches() == [{"a": 1}, {"a": 2}]


def test_one_is_neither_true_nor_one_point_nought() -> None:
    matrix = Matrix(a=[1, 1.0, True, "1"], exclude=[{"a": True}])
    assert [repr(branch["a"]) for branch in matrix.branches()] == ["1", "1.0", "'1'"]


def test_a_thousand_runs_keep_their_order() -> None:
    matrix = Matrix(a=list(range(10)), b=list(range(100)))
    assert [branch["a"] * 100 + branch["b"] for branch in matrix.branches()] == list(range(1000))  # type: ignore[operator]


def test_as_many_values_as_there_may_be_are_read_within_seconds() -> None:
    began = time.monotonic()
    matrix = Matrix(n=list(range(10_000)), exclude=[{"n": n} for n in range(0, 10_000, 2)])
    assert len(matrix.branches()) == 5_000
    assert time.monotonic() - began < 5


def test_a_matrix_without_bounds_is_refused_before_it_is_made() -> None:
    with pytest.raises(ValidationError, match="at most 10000 runs, found 100000000000000"):
        Matrix(**{name: list(range(100)) for name in "abcdefg"})
