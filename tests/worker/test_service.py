"""The systemd unit is one that systemd takes, and that leaves the processes of jobs alone."""

from __future__ import annotations

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from needs import needs
from reach import BIN

PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "examples/worker/prefect-jobs-worker.service"


@pytest.fixture
def service() -> dict[str, str]:
    """The keys of its section Service."""
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def test_systemd_finds_no_fault_in_it(service: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        needs("no systemd-analyze: apt-get install systemd")
    program = service["ExecStart"].split()[0]
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace(program, str(BIN / "prefect-jobs")))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    # What it says of other units of this machine is none of ours.
    assert [line for line in done.stderr.splitlines() if UNIT.stem in line] == []
    assert done.returncode == 0, done.stderr


def test_stopping_it_leaves_the_processes_of_jobs_and_gives_time_to_hand_back(service: dict[str, str]) -> None:
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) >= 60
    assert "--on-stop" not in service["ExecStart"]


def test_its_command_is_one_that_the_command_line_takes(service: dict[str, str]) -> None:
    program, *words = service["ExecStart"].split()
    done = subprocess.run([BIN / Path(program).name, *words, "--limit", "0"], capture_output=True, text=True)
    # Refused for the limit, and for nothing before it.
    assert done.stderr.startswith("--limit 0"), done
