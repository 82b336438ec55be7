"""The reason why an attempt ended is exact, whatever it was; docs/faults.md shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from faults.cases import CASES, Case
from faults.stage import Stage
from faults.table import Table
from ran import Execute

PAGE = Path(__file__).parents[2] / "docs/faults.md"


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_fault_shows_as_what_it_is(
    case: Case, busybox: str, execute: Execute, tmp_path: Path, table: Table
) -> None:
    seen = await case.play(Stage(case.infrastructure, busybox, execute, tmp_path))
    assert (seen.state.type, seen.state.name) == (case.type, case.name), seen.state
    assert re.fullmatch(case.message, seen.message), seen.message
    assert (seen.outcome.reason, seen.outcome.blame) == (case.reason, case.blame)
    assert seen.seconds < case.seconds
    table.add(case, seen)


def test_the_page_has_every_case_and_no_other() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert [tuple(row[:5]) for row in rows] == [case.cells for case in CASES]
