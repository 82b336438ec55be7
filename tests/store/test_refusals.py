"""What a store or a disk refuses: said at once and clearly, without a credential, and nothing is there by half."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from folders import Folder
from needs import needs
from s3 import KEY, S3, SECRET, Door, unique

from prefect_jobs import ObjectStore
from prefect_jobs.blocks.store_place import shown
from prefect_jobs.errors import MissingExtraError, StoreError, StoreUnavailable

MIB = 2**20


async def refused(block: ObjectStore, folder: Folder, tmp_path: Path, words: str) -> None:
    """Each kind of call ends soon with such a message, for good, and says what was tried."""
    folder.add("file", 10)
    folder.add("large", 5 * MIB)
    async with block.open() as store:
        for what, call in {
            "write 'a'": lambda: store.write("a", b"x"),
            "list 'a'": lambda: store.entries("a"),
            "upload 'out/": lambda: store.upload(folder.files, "out"),
            "list ": lambda: store.download("out", tmp_path / "back"),
        }.items():
            began = time.monotonic()
            with pytest.raises(StoreError, match=rf"could not {what}.*{words}") as problem:
                await call()
            assert time.monotonic() - began < 10
            assert not isinstance(problem.value, StoreUnavailable)
            said = "".join(traceback.format_exception(problem.value))
            for secret in (KEY, SECRET, "another-s3cret", "ANOTHERKEY"):
                assert secret not in said
    assert not list((tmp_path).glob("back/*"))


async def test_a_wrong_secret_is_refused_at_once(s3: S3, folder: Folder, tmp_path: Path) -> None:
    block = s3.block(unique(), credentials={"key": KEY, "secret": "another-s3cret"})
    await refused(block, folder, tmp_path, "SignatureDoesNotMatch: .*; check the block's credentials")


async def test_an_unknown_key_is_refused_at_once(s3: S3, folder: Folder, tmp_path: Path) -> None:
    block = s3.block(unique(), credentials={"key": "ANOTHERKEY", "secret": SECRET})
    await refused(block, folder, tmp_path, "InvalidAccessKeyId: .*; check the block's credentials")


async def test_a_missing_bucket_is_named_at_once(s3: S3, folder: Folder, tmp_path: Path) -> None:
    block = s3.block(url="s3://no-such-bucket/prefix")
    await refused(block, folder, tmp_path, "NoSuchBucket: .*; make the bucket, or mend the block's url")


async def test_a_bucket_that_may_not_be_used_is_refused_at_once(door: Door, folder: Folder, tmp_path: Path) -> None:
    door.answer = lambda method, path: (403, "AccessDenied")
    await refused(door.block(unique()), folder, tmp_path, "AccessDenied, says the door; check the block's credentials")


async def test_a_bucket_that_may_only_be_read_is_refused_when_it_is_written(door: Door, folder: Folder) -> None:
    folder.add("file", 10)
    folder.add("large", 20 * MIB)
    door.answer = lambda method, path: (403, "AccessDenied") if method in ("PUT", "POST") else None
    async with door.block(unique()).open() as store:
        assert await store.entries("out") == []
        with pytest.raises(StoreError, match="AccessDenied"):
            await store.upload(folder.files, "out")
        assert await store.entries("out") == []


async def test_an_unknown_option_is_named(s3: S3) -> None:
    async with s3.block(options={"endpoint": "http://127.0.0.1"}).open() as store:
        with pytest.raises(StoreError, match=r"could not write 'a': .*'endpoint'; check the block's url and options"):
            await store.write("a", b"")


@pytest.mark.parametrize(("url", "extra"), [("gs://bucket", "gs"), ("az://bucket", "az"), ("oci://bucket@ns", "oci")])
async def test_a_missing_extra_is_named_with_the_command_that_installs_it(url: str, extra: str) -> None:
    async with ObjectStore(url=url).open() as store:
        with pytest.raises(MissingExtraError, match=rf"{extra}://.*pip install 'prefect-jobs\[{extra}\]'"):
            await store.write("a", b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    (disk := tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        needs(f"no small disk, which only root can mount: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_what_does_not_fit_on_the_disk_is_not_begun(block: ObjectStore, folder: Folder, small_disk: Path) -> None:
    folder.add("small", 10)
    folder.add("large", 20 * MIB)
    async with block.open() as store:
        await store.upload(folder.files, "out")
        with pytest.raises(StoreError, match=r"20 MiB cannot be downloaded to '.*/back': 16 MiB are free there; free"):
            await store.download("out", small_disk / "back")
    assert list((small_disk / "back").iterdir()) == []


async def test_a_disk_that_is_full_half_way_ends_it_at_once_and_nothing_is_there_by_half(
    small_disk: Path, web: str
) -> None:
    began = time.monotonic()
    async with ObjectStore(url="memory://nothing").open() as store:
        with pytest.raises(StoreError, match=r"could not write '.*large' on this machine: No space left .*; free some"):
            await store.download(f"{web}/large", small_disk)
    assert time.monotonic() - began < 10
    assert list(small_disk.iterdir()) == []


async def test_a_store_on_a_full_disk_says_so_and_has_no_half_object(folder: Folder, small_disk: Path) -> None:
    folder.add("large", 20 * MIB)
    async with ObjectStore(url=f"file://{small_disk}/store").open() as store:
        with pytest.raises(StoreError, match=r"could not upload 'out/large': .*No space left.*; free some space"):
            await store.upload(folder.files, "out")
        with pytest.raises(StoreError, match="No space left"):
            await store.write("bytes", os.urandom(20 * MIB))
        assert await store.entries("") == []
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


@pytest.fixture
def web() -> Iterator[str]:
    """The URL of a server that has a large file, and wants to see a signature."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, _, query = self.path.lstrip("/").partition("?")
            self.send_response(403 if "wrong" in query else 200)
            self.end_headers()
            if "wrong" not in query:
                for _ in range(64 if name == "large" else 1):
                    self.wfile.write(bytes(MIB))

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *words: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


async def test_an_input_comes_from_the_web_and_a_signature_in_its_url_is_not_told(web: str, tmp_path: Path) -> None:
    async with ObjectStore(url="memory://nothing").open() as store:
        got = await store.download(f"{web}/of/a%20file?signature=right/%2F", tmp_path)
        assert ([(file.name, file.size) for file in got], got.single) == ([("a file", MIB)], True)
        signed, foreign = f"{web}/file?signature=wrong-{SECRET}", f"ftp://somebody:{SECRET}@host/file?x={SECRET}"
        with pytest.raises(StoreError, match="403") as problem:
            await store.download(signed, tmp_path)
        with pytest.raises(StoreError) as schemes:
            await store.download(foreign, tmp_path)
    assert SECRET not in "".join(traceback.format_exception(problem.value))
    assert SECRET not in str(schemes.value)
    assert "expected one of s3://" in str(schemes.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("https://host/a%20file?X-Amz-Signature=1#part", "https://host/a%20file?***"),
        ("https://somebody:password@host:8080/file", "https://host:8080/file"),
        ("https://host?signature=1", "https://host?***"),
        ("oci://bucket@namespace/key", "oci://bucket@namespace/key"),
        ("store://[x]/iris v2.csv", "store://[x]/iris v2.csv"),
        ("file:///srv/data", "file:///srv/data"),
    ],
)
def test_a_uri_is_shown_without_what_only_its_owner_may_know(uri: str, said: str) -> None:
    assert shown(uri) == said


async def test_no_credential_is_shown_by_anything(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prefect_jobs")
    block = s3.block(credentials={"key": KEY, "secret": SECRET}, patience=0)
    async with block.open() as store:
        await store.write("shown", b"")
        for shown in (block, store, store._place, store._place.files, store._place.threads):
            assert SECRET not in repr(shown)
            assert KEY not in repr(shown)
    assert SECRET not in block.model_dump_json()
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:secret@bucket", "put what is secret in it into credentials"),
        ("http://host/x", "begins with one of s3://, gs://, az://, oci://, file://, memory://"),
        ("/srv/jobs", "begins with one of"),
        ("s3:///prefix", "expected a bucket"),
        ("file://srv/jobs", "expected an absolute path"),
        ("s3://bucket/x?versionId=1", "neither"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused_when_the_block_is_made(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ObjectStore(url=url)


def hostile(name: str) -> Any:
    return pytest.param(name.encode(), id=name)


@pytest.mark.parametrize("name", [hostile("../../evil-x"), hostile("/etc/evil-xy"), hostile("a/../../evi")])
async def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_is_downloaded(
    door: Door, tmp_path: Path, name: bytes
) -> None:
    prefix = unique()
    async with door.block(prefix).open() as store:
        await store.write("in/innocent", b"x")
        await store.write(f"in/{'n' * len(name)}", b"x")
        door.change = lambda body: body.replace(b"n" * len(name), name)
        with pytest.raises(StoreError, match=r"cannot be downloaded: its name .*Nothing was downloaded"):
            await store.download("in", tmp_path / "a" / "b" / "to")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_an_object_and_a_folder_of_one_name_are_an_error_and_no_other_file(s3: S3, tmp_path: Path) -> None:
    async with ObjectStore(url=f"memory://{unique()}").open() as store:
        await store.write("in/a", b"object")
        store._place.files.fs.store[f"{store._place.files.path('in')}/a/b"] = store._place.files.fs.store[
            store._place.files.path("in/a")
        ]
        with pytest.raises(StoreError, match="could not write"):
            await store.download("in", tmp_path)


async def test_a_link_in_the_folder_leads_nowhere(block: ObjectStore, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    (to := tmp_path / "to").mkdir()
    (to / "link").symlink_to(outside)
    async with block.open() as store:
        await store.write("in/a", b"x")
        await store.write("in/link/deep/file", b"x")
        with pytest.raises(StoreError, match="by a link, and nothing was downloaded; download into an empty folder"):
            await store.download("in", to)
    assert list(outside.iterdir()) == []
    assert list(to.iterdir()) == [to / "link"]
