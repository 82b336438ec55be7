"""What a container leaves comes through the engine's API, whatever happens on the way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench

from prefect_jobs.errors import InfrastructureError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of this machine with room for 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]).returncode != 0:
        pytest.skip("a file system of 4 MiB cannot be mounted here: run the tests as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_of_the_supervisor_is_a_clear_error(bench: Bench, small_disk: Path) -> None:
    script = 'dd if=/dev/zero of="$JOB_OUTPUT_DIR/large" bs=1M count=20 2>/dev/null'
    container = await bench.launch(bench.sh(script))
    await bench.end_of(container)
    with pytest.raises(InfrastructureError, match=r"could not be kept .* No space left on device; make room"):
        await container.left("output", small_disk / "spool")
