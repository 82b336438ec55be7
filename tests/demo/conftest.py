from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demos import Demo, Start


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Start]:
    """Starts demos, all in one home."""
    started: list[Demo] = []

    def start(**environment: str) -> Demo:
        started.append(Demo(tmp_path / "home", environment))
        return started[-1]

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.output()
