"""What reaches a job from outside: its document, its commands, its server as a person and a program see it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from reach import BIN, Answer, Cli, Command

from prefect_jobs.deployments.cli import app


@pytest.fixture
def unique() -> str:
    """A job's name that no other test has."""
    return f"job-{uuid4().hex[:8]}"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a program of the environment, as a person would in a terminal; ``expect`` is its exit code."""

    def run(
        *words: str | Path, expect: int = 0, env: dict[str, str] | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [BIN / words[0], *words[1:]],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``prefect-jobs`` in this process, which spares the seconds that Prefect takes to be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*words: str | Path, expect: int = 0) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(app, [str(word) for word in words])
        printed = Answer(*capsys.readouterr())
        assert ended.value.code == expect, printed
        return printed

    return run
