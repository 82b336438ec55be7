"""The demo's Python environment is made once, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from demos import runs
from reach import until

from prefect_jobs.deployments import demo_environment
from prefect_jobs.deployments.demo_environment import (
    EnvironmentNotMade,
    cache_folder,
    environment_folder,
    make_environment,
)


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.txt"
    file.write_text("# nothing\n")
    return file


@pytest.fixture(params=["uv", "venv"])
def _installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "venv":
        monkeypatch.setattr(demo_environment.shutil, "which", lambda _: None)
    elif shutil.which("uv") is None:
        pytest.skip("no uv")


@pytest.mark.usefixtures("_installer")
async def test_an_environment_is_made_once_and_works_where_it_is(requirements: Path, tmp_path: Path) -> None:
    folder = await make_environment(requirements, tmp_path / "cache")
    python = folder / "bin/python"
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert prefix.stdout.strip() == str(folder)
    made = (folder / "pyvenv.cfg").stat()
    assert await make_environment(requirements, tmp_path / "cache") == folder
    assert (folder / "pyvenv.cfg").stat() == made
    assert list((tmp_path / "cache").iterdir()) == [folder]


@pytest.mark.usefixtures("_installer")
async def test_what_cannot_be_installed_leaves_nothing(requirements: Path, tmp_path: Path) -> None:
    requirements.write_text(f"{tmp_path}/no-such-package.whl\n")
    with pytest.raises(EnvironmentNotMade, match=r"(?s)exit code \d+.*no-such-package.*package index"):
        await make_environment(requirements, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_an_interrupted_one_leaves_nothing_and_is_made_anew(
    requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"
    with monkeypatch.context() as patch:
        slow = [["sh", "-c", f"sleep 60 & echo $! > {pid_file}.part; mv {pid_file}.part {pid_file}; wait"]]
        patch.setattr(demo_environment, "_commands", lambda *_: slow)
        making = asyncio.create_task(make_environment(requirements, tmp_path / "cache"))
        async with asyncio.timeout(10):
            while not pid_file.exists():
                await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    assert list((tmp_path / "cache").iterdir()) == []
    pid = int(pid_file.read_text())

    async def is_gone() -> bool:
        return not runs(pid)

    await until(is_gone, 10, "the end of the program")
    assert (await make_environment(requirements, tmp_path / "cache") / "bin/python").exists()


async def test_one_whose_python_was_removed_is_made_anew(requirements: Path, tmp_path: Path) -> None:
    folder = environment_folder(requirements, tmp_path)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(tmp_path / "removed")
    assert await make_environment(requirements, tmp_path) == folder
    assert os.access(folder / "bin/python", os.X_OK)


async def test_several_at_once_get_the_same_one(requirements: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folders = await asyncio.gather(*(make_environment(requirements, cache) for _ in range(3)))
    assert set(folders) == set(cache.iterdir())
    assert len(set(folders)) == 1


def test_other_requirements_have_another_environment(requirements: Path, tmp_path: Path) -> None:
    before = environment_folder(requirements, tmp_path)
    requirements.write_text("# something\n")
    assert environment_folder(requirements, tmp_path) != before


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "prefect-jobs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache/prefect-jobs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/prefect-jobs"
