"""A large output arrives whole, in flat memory: PREFECT_JOBS_OUTPUT_GIB=2 is what is promised, the suite has less."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from ran import Ran
from watched import MIB, watched

from prefect_jobs import ObjectStore

GIB = os.environ.get("PREFECT_JOBS_OUTPUT_GIB")
SIZE = int(float(GIB) * 1024) if GIB else 200
"""In MiB."""


@pytest.mark.timeout(0)
async def test_a_large_output_is_kept_and_handed_on_in_flat_memory(
    sh: Callable[..., Awaitable[Ran]], block: ObjectStore, bucket: Path, setting: str
) -> None:
    write = f"dd if=/dev/urandom of=$JOB_OUTPUT_DIR/large bs=1048576 count={SIZE} 2>&1"
    await sh("echo warm > $JOB_OUTPUT_DIR/warm")
    async with watched() as seen:
        first = await sh(write)
        assert first.state.is_completed(), first.state.message
        before = first.run.outcome.outputs.replace(f"{block.url}/", "store://")
        second = await sh("sha256sum < $JOB_INPUT_DIR/before/large", inputs={"before": before})
        assert second.state.is_completed(), second.state.message
    print(f"{setting}: {SIZE} MiB kept and handed on, {seen}")
    [kept] = bucket.glob(f"**/{first.run.id}/output/large")
    with kept.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert kept.stat().st_size == SIZE * MIB
    assert [line.split()[0] for line in second.lines] == [digest]
    assert seen.memory < 160 * MIB
