"""The iris example, from the same jobs.yaml, on a process and in a container."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from iris import FOLDER, iris_job, save_process

from prefect_jobs import Job, JobRun
from prefect_jobs.deployments.demo_environment import cache_folder, make_environment
from prefect_jobs.document import loads
from prefect_jobs.errors import OverrideError

if TYPE_CHECKING:
    from conftest import Execute


@pytest.fixture
async def train(prefect_api: str) -> Job:
    """The job of the file, deployed under a name of its own, with the block that it names."""
    await save_process()
    job = iris_job().model_copy(update={"name": f"train-{uuid4().hex[:8]}"})
    await job.apply()
    return job


async def _lines(run: JobRun) -> list[str]:
    return [log.message for log in await run.logs()]


@pytest.mark.parametrize("model", ["svc", "forest", "logreg"])
async def test_it_runs_on_a_process(train: Job, execute: Execute, model: str) -> None:
    run = await train.run(MODEL_CLASS=model, test_size=0.3)
    state = await execute(run)
    assert state.is_completed(), state.message
    lines = await _lines(run)
    assert f"Fitting {model} on 105 flowers, testing on 45" in lines
    assert "weighted avg" in "\n".join(lines)


@pytest.mark.parametrize("model", ["svc", "forest"])
async def test_it_runs_in_a_container_with_only_the_infrastructure_changed(
    train: Job, execute: Execute, iris_image: str, model: str
) -> None:
    run = await train.run(MODEL_CLASS=model, test_size=0.3, infrastructure="docker")
    state = await execute(run)
    assert state.is_completed(), state.message
    lines = await _lines(run)
    assert f"Job {train.name}, version {run.flow_run.deployment_version}, on docker, image {iris_image}" in lines
    assert f"Fitting {model} on 105 flowers, testing on 45" in lines
    assert "weighted avg" in "\n".join(lines)


async def test_both_write_the_same_lines(train: Job, execute: Execute, iris_image: str) -> None:
    reports = []
    for where in ("process/iris", "docker"):
        run = await train.run(infrastructure=where)
        await execute(run)
        lines = await _lines(run)
        first, last = lines.index("Classification report of svc:"), lines.index("Accuracy of svc: 1.000")
        reports.append(lines[first : last + 1])
    assert reports[0] == reports[1]


async def test_it_is_pinned_when_the_file_itself_names_docker(
    prefect_api: str, execute: Execute, iris_image: str
) -> None:
    text = (FOLDER / "jobs.yaml").read_text().replace("infrastructure: process/iris", "infrastructure: docker")
    job = next(job for job in loads(text) if job.name == "train")
    job = job.model_copy(update={"name": f"train-{uuid4().hex[:8]}"})
    change = await job.apply()
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", iris_image]
    image = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert image.removeprefix("sha256:").startswith(change.version.rpartition("-")[2])
    assert (await execute(await job.run())).is_completed()


async def test_a_class_that_it_does_not_know_is_refused_before_anything_starts(train: Job) -> None:
    with pytest.raises(OverrideError, match="MODEL_CLASS"):
        await train.run(MODEL_CLASS="perceptron")


@pytest.fixture(scope="module")
def python() -> Path:
    return asyncio.run(make_environment(FOLDER / "requirements.txt", cache_folder())) / "bin/python"


def _call(python: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [python, FOLDER / "train.py", *arguments]
    return subprocess.run(command, env={"PYTHONDONTWRITEBYTECODE": "1", **environment}, capture_output=True, text=True)


def test_the_program_itself_leaves_its_result(python: Path, tmp_path: Path) -> None:
    ended = _call(python, "--test-size", "0.3", MODEL_CLASS="forest", JOB_OUTPUT_DIR=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result.keys() == {"model_class", "test_size", "accuracy"}
    assert (result["model_class"], result["test_size"]) == ("forest", 0.3)
    assert 0.9 < result["accuracy"] <= 1


def test_the_program_itself_refuses_a_class_that_it_does_not_know(python: Path) -> None:
    ended = _call(python, MODEL_CLASS="perceptron")
    assert ended.returncode == 2
    assert ended.stderr == "MODEL_CLASS='perceptron': expected one of svc, forest, logreg\n"


def test_the_example_knows_nothing_of_prefect() -> None:
    for path in [*FOLDER.glob("*.py"), FOLDER / "requirements.txt", FOLDER / "Dockerfile"]:
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "import prefect" in line or line.startswith("prefect")]


def test_a_wheel_holds_the_examples(tmp_path: Path) -> None:
    root = tmp_path / "project"
    others = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(FOLDER.parents[1], root, symlinks=True, ignore=others)
    build = [sys.executable, "-m", "build", "--installer", "uv", "--wheel", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if "/examples/" in name}
    assert held == {
        f"prefect_jobs/examples/{folder.name}/{file.name}": file.read_bytes()
        for folder in (FOLDER, FOLDER.parent / "worker")
        for file in folder.iterdir()
        if file.is_file()
    }
