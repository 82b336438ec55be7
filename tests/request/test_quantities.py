from __future__ import annotations

from typing import Any

import pytest

from prefect_jobs.quantities import Cpu, Duration, Measure, Memory


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0, 0),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("0.5s", 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h5s", 3605),
        ("2d", 172_800),
        ("1d2h3m4s", 93_784),
        ("1.5h", 5400),
        (" 5m ", 300),
    ],
)
def test_a_duration_is_seconds_or_units_from_large_to_small(text: Any, seconds: float) -> None:
    assert Duration(text).seconds == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "h", "5 m", "5min", "-5", "+5", "30m1h", "1h1h", "1e3", "1,5h", "PT5M", "∞", "inf", "nan", ".5s"],
)
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        Duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (2**20, 2**20),
        ("2000000", 2_000_000),
        ("2000k", 2_000_000),
        ("1024Ki", 2**20),
        ("512Mi", 512 * 2**20),
        ("4Gi", 4 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("2T", 2 * 10**12),
        ("1Pi", 2**50),
    ],
)
def test_an_amount_of_memory_is_written_as_in_kubernetes(text: Any, size: int) -> None:
    assert Memory(text).bytes == size


@pytest.mark.parametrize(("text", "cores"), [(2, 2), (0.5, 0.5), ("500m", 0.5), ("1.5", 1.5)])
def test_a_number_of_cores_is_written_as_in_kubernetes(text: Any, cores: float) -> None:
    assert Cpu(text).cores == cores


@pytest.mark.parametrize("text", [0, "0", "1048575", "1k", "1023Ki", "0.9Mi"])
def test_less_memory_than_anything_needs_is_a_slip(text: Any) -> None:
    with pytest.raises(ValueError, match="expected at least 1Mi of memory; a plain number is bytes"):
        Memory(text)


@pytest.mark.parametrize("text", ["100m", "512m", "2000000000m"])
def test_a_thousandth_of_a_byte_is_a_slip(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected an amount of memory such as .*; 'm' is a thousandth"):
        Memory(text)


@pytest.mark.parametrize("text", [0, 0.0, "0", "0m"])
def test_no_cores_are_a_slip(text: Any) -> None:
    with pytest.raises(ValueError, match="expected more than 0 CPU cores"):
        Cpu(text)


@pytest.mark.parametrize("text", ["4GB", "4gi", "4 Gi", "Gi", "-1", "", "1e9", "many"])
@pytest.mark.parametrize("kind", [Cpu, Memory])
def test_a_text_that_is_no_quantity_is_refused(kind: type[Measure], text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        kind(text)


@pytest.mark.parametrize("value", [True, None, [], {}, b"5"])
@pytest.mark.parametrize("kind", [Cpu, Duration, Memory])
def test_what_is_neither_number_nor_text_is_no_quantity(kind: type[Measure], value: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        kind.validate(value)


def test_a_quantity_remembers_how_it_was_written() -> None:
    assert [Duration(text).source for text in (90, "90s", 1.0)] == [90, "90s", 1.0]
    assert str(Memory("4Gi")) == "4Gi"


def test_quantities_of_one_value_are_equal_however_they_were_written() -> None:
    assert Duration(90) == Duration("1m30s")
    assert hash(Memory("1Mi")) == hash(Memory(2**20))
    assert Memory(2**20) != Memory(2**20 + 1)


def test_quantities_of_two_kinds_are_never_equal() -> None:
    assert Duration(1) != Cpu(1)
