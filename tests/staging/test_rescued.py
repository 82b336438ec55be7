"""What a store refuses when the work is done is not lost: it stays on the machine of the worker for some days."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ran import Ran, deployed
from s3 import Door, session_s3, unique

from prefect_jobs import Job
from prefect_jobs.blocks.spool import SPOOL, rescue


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it stays."""
    monkeypatch.setenv(SPOOL, str(tmp_path / "spool"))
    return tmp_path / "spool" / "rescued"


@pytest.mark.parametrize("setting", ["process, folder", "docker, S3"])
async def test_outputs_that_the_store_refuses_at_the_end_stay_here(
    where: dict[str, Any], home: Path, start: Callable[..., Awaitable[Ran]], prefect_api: str
) -> None:
    with Door(session_s3()).opened() as door:
        # As where somebody has changed the rights while the job was at work.
        door.answer = lambda method, path: (403, "AccessDenied") if "/output/" in path and method == "PUT" else None
        await door.block(unique()).asave(name := f"store-{uuid4().hex[:8]}")
        script = "cd $JOB_OUTPUT_DIR; mkdir deep; echo best > deep/model; echo 1 > score"
        job: Job = await deployed(f"job-{uuid4().hex[:8]}", **where, store=name, command=["sh", "-c", script])
        ran = await start(job)
    assert ran.state.name == "StoreUnavailable"
    assert "AccessDenied" in ran.message
    found = re.search(r"Its outputs \(2 files\) are on \S+ for 7 days: (\S+)", ran.message)
    assert found is not None, ran.message
    place = Path(found[1])
    assert place == home / f"{ran.run.id}-1"
    assert {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()} == {
        "deep/model": "best\n", "score": "1\n"
    }  # fmt: skip


async def test_it_goes_after_some_days_when_something_else_comes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    old = await rescue("old", {"file": tmp_path / "file"})
    young = await rescue("young", {"file": tmp_path / "file"})
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    await rescue("new", {"file": tmp_path / "file"})
    assert sorted(path.name for path in home.iterdir()) == ["new", "young"]
    assert (young / "file").read_text() == "x"
