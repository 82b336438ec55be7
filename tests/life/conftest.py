"""What tests of a run's life share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from session import alone


@pytest.fixture
def sweeping_alone() -> Iterator[None]:
    """Nobody else sweeps meanwhile: a sweep takes what another test wants to see swept."""
    with alone("sweeping"):
        yield
