"""What only processes have: a shim that can be killed, frozen, starved or slow."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bench import Bench, bench_on
from hosts import process_host

from prefect_jobs.blocks import shim
from prefect_jobs.spec import Identity


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_on(process_host(tmp_path).block) as bench:
        yield bench


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Identity], Path]:
    """The folder of an attempt."""
    return lambda identity: tmp_path / "runs" / str(identity.run_id) / f"attempt-{identity.attempt}"


@pytest.fixture
def started(folder: Callable[[Identity], Path]) -> Callable[[Identity], dict[str, Any]]:
    """What a shim wrote down at the start of an attempt."""
    return lambda identity: json.loads((folder(identity) / "started.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has every shim run other code before its own; ``shim`` is its module."""
    real = shim.__file__

    def put_before(code: str) -> None:
        program = tmp_path / "shim_after.py"
        program.write_text(
            "import importlib.util\n"
            f"spec = importlib.util.spec_from_file_location('shim', {real!r})\n"
            "shim = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(shim)\n"
            f"{code}\nshim.main()\n"
        )
        monkeypatch.setattr(shim, "__file__", str(program))

    return put_before


def processes_of(run_id: UUID) -> list[int]:
    """The processes whose environment names a run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"JOB_RUN_ID={run_id}".encode() in environ.split(b"\0"):
            found.append(int(pid))
    return found


@pytest.fixture(name="processes_of")
def _processes_of() -> Callable[[UUID], list[int]]:
    return processes_of
