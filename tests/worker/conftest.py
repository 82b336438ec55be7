"""Workers of the type prefect-jobs, each a process of its own, on pools of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from looks import remove_containers


@pytest.fixture
def pool() -> Iterator[str]:
    """A name that no other test has, for a job, and for the work pool of a worker of its own."""
    name = f"pool-{uuid4().hex[:8]}"
    yield name
    remove_containers(name)
