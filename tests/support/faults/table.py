"""The fault matrix as a page: a row for each case, filled in from a run."""

from __future__ import annotations

import re
from pathlib import Path

from faults.cases import CASES, Case
from faults.stage import Seen

HEAD = """\
# How attempts end

Each row was played by the suite on the real thing: the fault was made, and this is what Prefect showed. `make faults`
plays them all and writes this page. The last column is the time from the fault until the run showed it, on a machine of
two cores: from the end of the container where it ended by itself, from the limit where it ran out of time (a container
that ignores SIGTERM has one more second here), and else from what was done to it.

| what happened | infrastructure | state | reason | retries it counts against | message | seconds |
|---|---|---|---|---|---|---|
"""
_LONGEST = 160
_OF_A_RUN = re.compile(
    r"(?<=127\.0\.0\.1:)\d+|(?<=job-)[0-9a-f]{8}|(?<=missing-)[0-9a-f-]{36}|(?<=private/)[0-9a-f]{8}"
)


class Table:
    """The rows that were seen."""

    def __init__(self) -> None:
        self._rows: dict[Case, str] = {}

    def add(self, case: Case, seen: Seen) -> None:
        """Keep what a case looked like."""
        # What is another one in each run.
        message = _OF_A_RUN.sub("…", seen.message)
        message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
        cells = (*case.cells, message.replace("|", "\\|"), f"{max(0.0, seen.seconds):.1f}")
        self._rows[case] = f"| {' | '.join(cells)} |"

    def write(self, path: Path) -> None:
        """Write the page, if every case was seen."""
        missing = [str(case) for case in CASES if case not in self._rows]
        assert not missing, f"not played, or failed: {missing}"
        path.write_text(HEAD + "\n".join(self._rows[case] for case in CASES) + "\n")
