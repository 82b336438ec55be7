from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.table import Table


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """What was seen; written to the file that FAULTS names, if it names one."""
    table = Table()
    yield table
    if path := os.environ.get("FAULTS"):
        table.write(Path(path))
