"""The fault matrix as a page: a row for each case, filled in from a run."""

from __future__ import annotations

from pathlib import Path

from faults.cases import CASES, Case
from faults.stage import Seen

HEAD = """\
# How attempts end

Each row was played by the suite on the real thing: the fault was made, and this is what Prefect showed. `make faults`
plays them all and writes this page. The last column is the time from the fault until the run showed it, on a machine of
two cores; timeouts include the time that a stopped container may take, here one second.

| what happened | infrastructure | state | reason | retries it counts against | message | seconds |
|---|---|---|---|---|---|---|
"""
_LONGEST = 160


class Table:
    """The rows that were seen."""

    def __init__(self) -> None:
        self._rows: dict[Case, str] = {}

    def add(self, case: Case, seen: Seen) -> None:
        """Keep what a case looked like."""
        message = seen.message if len(seen.message) <= _LONGEST else f"{seen.message[:_LONGEST]}…"
        cells = (*case.cells, message.replace("|", "\\|"), f"{max(0.0, seen.seconds):.1f}")
        self._rows[case] = f"| {' | '.join(cells)} |"

    def write(self, path: Path) -> None:
        """Write the page, if every case was seen."""
        missing = [str(case) for case in CASES if case not in self._rows]
        assert not missing, f"not played, or failed: {missing}"
        path.write_text(HEAD + "\n".join(self._rows[case] for case in CASES) + "\n")
