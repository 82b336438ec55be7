"""What a user gets who installs the wheel today: every file, every command, a server that starts and schedules."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from environments import PROJECT, Run
from ports import free_port
from session import root


def test_the_wheel_holds_every_module_the_types_and_the_examples_and_no_tests(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"prefect_jobs/{path.name}" for path in (PROJECT / "prefect_jobs").glob("*.py")}
    for floor in ("blocks", "flows", "deployments"):
        wanted |= {f"prefect_jobs/{floor}/{path.name}" for path in (PROJECT / floor).glob("*.py")}
    wanted |= {
        f"prefect_jobs/{path.relative_to(PROJECT)}"
        for path in (PROJECT / "examples").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == wanted | {"prefect_jobs/py.typed"}


def test_the_installed_command_says_its_version(without_docker: Run) -> None:
    assert without_docker("prefect-jobs", "--version").stdout == f"{version('prefect-jobs')}\n"


def test_prefect_finds_the_blocks(with_docker: Run, prefect_api: str) -> None:
    found = with_docker(
        "python", "-c", "from prefect.plugins import load_prefect_collections as l; print(l()['prefect_jobs'].__name__)"
    )
    assert found.stdout.splitlines()[-1] == "prefect_jobs.deployments.collection"
    registered = with_docker("prefect", "block", "register", "-m", "prefect_jobs.blocks").stdout
    assert "Process Infrastructure" in registered
    assert "Docker Infrastructure" in registered


def test_without_the_extra_docker_all_but_docker_works(without_docker: Run) -> None:
    blocks = without_docker("python", "-c", "from prefect_jobs.blocks import *; print(Process.__name__, dir())").stdout
    assert blocks.startswith("Process ")
    assert "'Docker'" not in blocks
    refused = without_docker("python", "-c", "from prefect_jobs import Docker", expect=1).stderr
    assert "MissingExtraError: The Docker infrastructure needs the extra 'docker'" in refused
    assert "pip install 'prefect-jobs[docker]'" in refused


def test_without_the_extra_docker_a_docker_job_is_refused_with_the_command_that_helps(
    without_docker: Run, tmp_path: Path
) -> None:
    (file := tmp_path / "jobs.yaml").write_text("jobs: {hello: {infrastructure: docker, image: 'busybox:1'}}")
    assert without_docker("prefect-jobs", "apply", file, expect=1).stderr == (
        f"{file}:1: jobs.hello: The Docker infrastructure needs the extra 'docker', which is not installed: "
        "pip install 'prefect-jobs[docker]'\n"
    )


@pytest.fixture
def installed_server(with_docker: Run, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of the installed environment; the settings with which to reach it."""
    port = str(free_port())
    settings = {"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [root() / "with-docker/bin/prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{settings['PREFECT_API_URL']}/health", timeout=2)
                break
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        yield settings
    finally:
        server.terminate()
        server.wait(30)


def test_a_server_of_the_newest_versions_starts_and_schedules_and_a_job_runs(
    with_docker: Run, installed_server: dict[str, str], tmp_path: Path
) -> None:
    (file := tmp_path / "jobs.yaml").write_text(
        "jobs: {hello: {command: [echo, hello from the wheel], schedules: [{interval: 1h}]}}"
    )
    assert "job/hello: created" in with_docker("prefect-jobs", "apply", file, **installed_server).stdout

    deadline = time.monotonic() + 30
    while not (scheduled := _runs(installed_server["PREFECT_API_URL"])):
        assert time.monotonic() < deadline, "nothing is scheduled"
        time.sleep(0.5)
    assert {run["state_type"] for run in scheduled} == {"SCHEDULED"}

    started = with_docker("prefect-jobs", "run", "hello", "--name", "now", **installed_server).stdout
    with_docker("prefect", "flow-run", "execute", started.rpartition("(")[2].rstrip(")\n"), **installed_server)
    shown = with_docker("prefect-jobs", "show", "now", **installed_server).stdout
    assert "attempt 1 after 0.0 s: exit code 0" in shown
    assert "hello from the wheel" in with_docker("prefect-jobs", "logs", "now", **installed_server).stdout


def _runs(url: str) -> list[dict[str, str]]:
    request = urllib.request.Request(
        f"{url}/flow_runs/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    found: list[dict[str, str]] = json.load(urllib.request.urlopen(request, timeout=10))
    return found
