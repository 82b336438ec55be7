"""What goes to a store comes back as it was, with the checksums of what was read."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from folders import Folder

from prefect_jobs import ObjectStore, Reason
from prefect_jobs.errors import NoSuchObject, StoreError
from prefect_jobs.manifest import File, Manifest

MIB = 2**20
NOW = datetime.now(UTC)
NAMES = {
    "plain.txt": 10,
    "empty": 0,
    "deep/er/and deeper/file": 1000,
    "a space and ünïcode ✓ 数据.bin": 77,
    "percent%20 plus+ hash# question? star* [x] 'quote' \"double\" back\\slash ;semi:colon": 5,
    ".hidden": 3,
    "one-request": 4 * MIB,
    "two-blocks": 4 * MIB + 1,
    "many-blocks": 20 * MIB + 123,
    "exact-blocks": 16 * MIB,
}


def manifest(files: list[File]) -> Manifest:
    return Manifest(job="train", run_id="r", version="v", attempt=1, outcome=Reason.SUCCEEDED, written=NOW, files=files)


async def test_files_come_back_with_their_checksums(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    for name, size in NAMES.items():
        folder.add(name, size)
    async with block.open() as store:
        sent = await store.upload(folder.files, "job/run/output")
        assert sent == [
            File(name=name, size=size, sha256=hashlib.sha256((folder.path / name).read_bytes()).hexdigest())
            for name, size in sorted(NAMES.items())
        ]
        listed = {entry.name: entry.size for entry in await store.entries("job/run/output")}
        assert listed == NAMES
        assert await store.download("job/run/output", tmp_path / "all") == sent
        assert folder.same_as(tmp_path / "all")
        assert await store.download("job/run/output", tmp_path / "named", manifest(sent)) == sent
        assert folder.same_as(tmp_path / "named")


async def test_two_thousand_small_files_come_back(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    for number in range(2000):
        folder.add(f"{number % 7}/{number}", 100 + number % 50)
    async with block.open() as store:
        sent = await store.upload(folder.files, "many")
        assert len(sent) == 2000
        assert await store.download("many", tmp_path / "back") == sent
    assert folder.same_as(tmp_path / "back")


async def test_bytes_are_written_read_and_replaced(block: ObjectStore) -> None:
    async with block.open() as store:
        await store.write("a/manifest.json", b"first")
        await store.write("a/manifest.json", b"second")
        await store.write("a/empty", b"")
        assert await store.read("a/manifest.json") == b"second"
        assert await store.read("a/empty") == b""
        assert await store.read("a/manifest.json", limit=6) == b"second"
        with pytest.raises(StoreError, match="has 6 bytes, and no more than 5 are read"):
            await store.read("a/manifest.json", limit=5)


async def test_what_is_not_there_is_named(block: ObjectStore, tmp_path: Path) -> None:
    async with block.open() as store:
        await store.write("there/x", b"1")
        for missing in ("nothing", "there", "ther"):
            with pytest.raises(NoSuchObject, match=f"could not read '{missing}'.*check the name"):
                await store.read(missing)
        with pytest.raises(NoSuchObject, match=r"nothing is at .*/nothing or below it; check the name"):
            await store.download("nothing", tmp_path / "to")
        assert await store.entries("nothing") == []
        assert await store.delete("nothing") == 0


async def test_a_prefix_is_a_folder_and_no_beginning_of_a_name(block: ObjectStore) -> None:
    async with block.open() as store:
        for key in ("a/b/1", "a/b/2/3", "a/bc", "a/b*", "a/bcd/1"):
            await store.write(key, key.encode())
        assert [entry.name for entry in await store.entries("a/b")] == ["1", "2/3"]
        assert await store.delete("a/b*") == 1
        assert await store.delete("a/b") == 2
        assert [entry.name for entry in await store.entries("a")] == ["bc", "bcd/1"]


async def test_what_an_earlier_attempt_left_is_gone_after_an_upload(block: ObjectStore, folder: Folder) -> None:
    folder.add("kept", 10)
    async with block.open() as store:
        await store.write("out/stray/of/an/earlier/attempt", b"x")
        await store.write("out/kept", b"another size")
        await store.write("outer", b"not below it")
        await store.upload(folder.files, "out")
        assert [(entry.name, entry.size) for entry in await store.entries("out")] == [("kept", 10)]
        assert await store.read("outer") == b"not below it"
        assert await store.upload([], "out") == []
        assert await store.entries("out") == []


async def test_one_object_is_downloaded_by_key_and_by_uri(block: ObjectStore, tmp_path: Path) -> None:
    async with block.open() as store:
        await store.write("in/iris.csv", b"1,2,3")
        by_key = await store.download("in/iris.csv", tmp_path / "key")
        by_uri = await store.download(store.uri("in/iris.csv"), tmp_path / "uri")
        below = await store.download(store.uri("in") + "/", tmp_path / "below")
        named = await store.download("in", tmp_path / "named", manifest(by_key))
    assert by_key == by_uri == below == named
    assert [got.single for got in (by_key, by_uri, below, named)] == [True, True, False, False]
    for folder in ("key", "uri", "below"):
        assert (tmp_path / folder / "iris.csv").read_bytes() == b"1,2,3"


async def test_one_object_below_a_prefix_of_its_own_name_is_no_single_one(block: ObjectStore, tmp_path: Path) -> None:
    async with block.open() as store:
        await store.write("in/iris/iris", b"1,2,3")
        got = await store.download("in/iris", tmp_path)
    assert ([file.name for file in got], got.single) == (["iris"], False)


@pytest.mark.parametrize("name", ["iris%20v2.csv", "50% of it", "a#b", "[x]"])
async def test_the_name_of_one_object_is_taken_as_it_is(block: ObjectStore, tmp_path: Path, name: str) -> None:
    async with block.open() as store:
        await store.write(f"in/{name}", b"1,2,3")
        for number, source in enumerate((f"in/{name}", store.uri(f"in/{name}"))):
            got = await store.download(source, tmp_path / str(number))
            assert ([file.name for file in got], got.single) == ([name], True)


async def test_a_store_whose_url_is_one_object_gives_that_object(block: ObjectStore, tmp_path: Path) -> None:
    async with block.open() as store:
        await store.write("in/iris.csv", b"1,2,3")
    async with block.model_copy(update={"url": f"{block.url}/in/iris.csv"}).open() as store:
        await store.download("", tmp_path)
    assert (tmp_path / "iris.csv").read_bytes() == b"1,2,3"


async def test_only_what_a_manifest_names_is_downloaded(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    folder.add("named", 10)
    async with block.open() as store:
        sent = await store.upload(folder.files, "out")
        await store.write("out/stray", b"x")
        assert await store.download("out", tmp_path / "to", manifest(sent)) == sent
    assert folder.same_as(tmp_path / "to")


@pytest.mark.parametrize("size", [10, 10 * MIB], ids=["small", "large"])
async def test_another_content_than_the_manifest_says_is_refused_and_not_kept(
    block: ObjectStore, folder: Folder, tmp_path: Path, size: int
) -> None:
    folder.add("model", size)
    async with block.open() as store:
        sent = await store.upload(folder.files, "out")
        for other in (os.urandom(size), os.urandom(size - 1)):
            await store.write("out/model", other)
            with pytest.raises(StoreError, match=r"out/model.*(is not what was written there|is another object)"):
                await store.download("out", tmp_path / "to", manifest(sent))
        await store.delete("out")
        with pytest.raises(NoSuchObject):
            await store.download("out", tmp_path / "to", manifest(sent))
    assert [path for path in (tmp_path / "to").rglob("*") if path.is_file()] == []


async def test_only_plain_files_are_uploaded(block: ObjectStore, tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("of this machine")
    (link := tmp_path / "link").symlink_to(secret)
    os.mkfifo(pipe := tmp_path / "pipe")
    async with block.open() as store:
        for path in (link, pipe, tmp_path, tmp_path / "missing"):
            with pytest.raises(StoreError, match=str(path)):
                await store.upload([("name", path)], "out")
        for name in ("../x", "/x", "a//b", "a/../../b", "", ".", "x\0", "\udcff"):
            with pytest.raises(StoreError, match="cannot be uploaded: its name"):
                await store.upload([(name, secret)], "out")
        assert await store.entries("out") == []


def test_a_manifest_is_the_same_after_a_trip_through_json() -> None:
    one = manifest([File(name="a b/ü", size=1, sha256="0" * 64)])
    assert Manifest.model_validate_json(one.model_dump_json()) == one
    for name in ("../x", "/etc/passwd", "a/../b", "a//b", "", "a/"):
        with pytest.raises(ValueError, match=r"relative path|leads out"):
            File(name=name, size=1, sha256="0" * 64)
