"""A folder of this machine that others write to: a link in it stands for a file in it, and nothing outside is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from prefect_jobs import ObjectStore
from prefect_jobs.blocks.store_files import Files
from prefect_jobs.errors import NoSuchObject, StoreError


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is nobody's business."""
    (home := tmp_path / "home").mkdir()
    (home / "secret").write_text("of this machine")
    return home / "secret"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder that jobs may write to."""
    (folder := tmp_path / "data").mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("a file")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


async def test_a_link_in_a_folder_stands_for_its_file_and_what_leads_out_is_named_and_not_read(
    data: Path, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "inside").symlink_to("deep/file")
    (data / "deep" / "up").symlink_to(data / "inside")
    (data / "stolen").symlink_to(secret)
    (data / "deep" / "climbing").symlink_to(f"../../home/{secret.name}")
    (data / "folder").symlink_to(secret.parent)
    (data / "within").symlink_to("deep")
    (data / "dangling").symlink_to("nowhere")
    os.mkfifo(data / "pipe")
    monkeypatch.chdir(data)  # The path of a socket may not be long.
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("socket")
    told: list[str] = []
    async with ObjectStore(url="memory://nothing").open() as store:
        await store.download(f"file://{data}", tmp_path / "to", tell=told.append)
    assert contents(tmp_path / "to") == dict.fromkeys(["deep/file", "deep/up", "inside"], "a file")
    where = f"Not taken from file://{data}: "
    out, no_file = "because it is a link out of the folder", "because it is a link to no file"
    neither = "because it is neither a file nor a folder"
    assert sorted(line.removeprefix(where) for line in told) == [
        f"'dangling', {no_file}",
        f"'deep/climbing', {out}",
        f"'folder', {out}",
        f"'pipe', {neither}",
        f"'socket', {neither}",
        f"'stolen', {out}",
        f"'within', {no_file}",
    ]


async def test_where_nothing_but_links_out_is_there_nothing_is_there(data: Path, secret: Path, tmp_path: Path) -> None:
    (data / "deep" / "file").unlink()
    (data / "stolen").symlink_to(secret)
    async with ObjectStore(url="memory://nothing").open() as store:
        with pytest.raises(NoSuchObject, match="that is read; of 'stolen': it is a link out of the folder"):
            await store.download(f"file://{data}", tmp_path / "to")


def test_a_link_that_is_made_after_the_look_is_not_followed(data: Path, secret: Path) -> None:
    files = Files(f"file://{data}", {}, at_once=1)
    assert [entry.name for entry in files.entries("") if not entry.problem] == ["deep/file"]
    assert files.get("deep/file", 2, 6) == b"file"
    (data / "deep" / "file").unlink()
    (data / "deep" / "file").symlink_to(secret)
    with pytest.raises(StoreError, match=r"'.*/deep/file' leads out of '.*/data' by a link, and nothing outside"):
        files.get("deep/file", 0, 6)
    (data / "deep" / "file").unlink()
    (data / "deep").rmdir()
    (data / "deep").symlink_to(secret.parent)
    with pytest.raises(StoreError, match="leads out of"):
        files.get("deep/secret", 0, 6)
    os.mkfifo(data / "pipe")
    with pytest.raises(StoreError, match="is no plain file"):
        files.get("pipe", 0, 6)


async def test_a_place_may_itself_be_a_link_for_it_is_named_by_whoever_asks(data: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(data)
    (tmp_path / "one").symlink_to(data / "deep" / "file")
    async with ObjectStore(url="memory://nothing").open() as store:
        await store.download(f"file://{tmp_path}/latest", tmp_path / "to")
        await store.download(f"file://{tmp_path}/one", tmp_path / "to")
    assert contents(tmp_path / "to") == {"deep/file": "a file", "one": "a file"}


async def test_a_store_that_is_a_folder_gives_nothing_from_outside(data: Path, secret: Path, tmp_path: Path) -> None:
    (data / "stolen").symlink_to(secret)
    (data / "deep" / "folder").symlink_to(secret.parent)
    async with ObjectStore(url=f"file://{data}").open() as store:
        with pytest.raises(NoSuchObject, match="it is a link out of the folder"):
            await store.download("stolen", tmp_path / "to")
        for key in ("stolen", "deep/folder/secret"):
            with pytest.raises(StoreError, match="leads out of"):
                await store.read(key)
        with pytest.raises(StoreError, match="leads out of"):
            await store.download("deep/folder", tmp_path / "to")
        # What is removed is the link, and not what it leads to.
        assert await store.delete("stolen") == 1
    assert contents(tmp_path / "to") == {}
    assert secret.exists()
