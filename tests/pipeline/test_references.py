"""References in texts: found, and replaced by values that keep their type where they stand alone."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_jobs.graph import find_cycle
from prefect_jobs.references import filled, part_of, references

VALUES = {"k": 3, "t": "text", "l": [1, "a"], "best.metric": 0.5, "steps.my-list.result.0": True}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ k }}", 3),
        ("{{l}}", [1, "a"]),
        ("{{ steps.my-list.result.0 }}", True),
        (" {{ k }}", " 3"),
        ("{{ k }}{{ t }}", "3text"),
        ("{{ l }} {{ steps.my-list.result.0 }}", '[1, "a"] true'),
        ({"a": ["{{ best.metric }}", 1, "x{{ t }}"]}, {"a": [0.5, 1, "xtext"]}),
        ("{{ other }} {{ t }}", "{{ other }} text"),
        ("{{ other }}", "{{ other }}"),
        ("{ k }", "{ k }"),
    ],
)
def test_references_are_replaced(value: Any, expected: Any) -> None:
    found = filled(value, VALUES.__getitem__)
    assert (found, type(found)) == (expected, type(expected))


def test_what_a_value_brings_is_not_replaced_again() -> None:
    assert filled("{{ a }}{{ b }}", {"a": "{{ b }}", "b": "1"}.__getitem__) == "{{ b }}1"


def test_references_are_found_wherever_they_are() -> None:
    assert list(references({"a": ["{{ x }}", 3], "b": "{{y.z}}-{{ steps.a-b.result }}"})) == [
        "x",
        "y.z",
        "steps.a-b.result",
    ]


def test_a_part_of_a_value_is_found_by_its_key() -> None:
    assert part_of({"a": [{"b": 1}]}, "a.0.b") == 1


@pytest.mark.parametrize("key", ["b", "a.1", "a.x", "a.0.b.c", "a.-1"])
def test_a_part_that_is_not_there_is_missing(key: str) -> None:
    with pytest.raises(LookupError):
        part_of({"a": [{"b": 1}]}, key)


def test_a_cycle_is_found_and_named_in_its_order() -> None:
    assert find_cycle({"a": ["b"], "b": [], "c": ["a", "b"]}) is None
    needs = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["a"]}
    cycle = find_cycle(needs)
    assert cycle is not None
    assert sorted(cycle) == ["a", "b", "c"]
    assert all(after in needs[step] for step, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
