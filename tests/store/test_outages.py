"""A server that goes and comes back, a transfer that is cut off: all of it arrives, or nothing is there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import Folder
from s3 import S3, Door, unique

from prefect_jobs import ObjectStore
from prefect_jobs.errors import StoreUnavailable

MIB = 2**20


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("away", [float(os.environ.get("PREFECT_JOBS_STORE_AWAY", "6"))])
async def test_all_arrives_though_the_server_was_away_for_a_while(
    own_s3: S3, folder: Folder, tmp_path: Path, away: float
) -> None:
    for number in range(400):
        folder.add(f"small/{number}", 3000)
    for number in range(3):
        folder.add(f"large/{number}", 60 * MIB)
    told: list[str] = []

    async def outage(condition: Callable[[], object]) -> None:
        await until(condition)
        own_s3.stop()
        await asyncio.sleep(away)
        await asyncio.to_thread(own_s3.start)

    async with own_s3.block("pre").open() as store:
        breaking = asyncio.create_task(outage(lambda: len(own_s3.objects("pre")) > 50))
        sent = await store.upload(folder.files, "out", told.append)
        assert breaking.done(), "the server went away too late"
        assert [entry.name for entry in await store.entries("out")] == sorted(name for name, _ in folder.files)

        back = tmp_path / "back"
        breaking = asyncio.create_task(outage(lambda: len(list(back.rglob("*"))) > 50))
        assert await store.download("out", back, tell=told.append) == sent
        assert breaking.done(), "the server went away too late"
    assert folder.same_as(back)
    waited = [line for line in told if "does not answer" in line]
    assert 2 <= len(waited) <= 4 + away / 4
    assert "asking again for up to" in waited[0]


async def test_a_store_that_is_too_busy_is_asked_again(door: Door, folder: Folder, tmp_path: Path) -> None:
    for number in range(30):
        folder.add(str(number), 100)
    refusals = iter([(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")] * 10)
    door.answer = lambda method, path: next(refusals, None)
    async with door.block(unique()).open() as store:
        sent = await store.upload(folder.files, "out")
        refusals = iter([(503, "SlowDown")] * 20)
        assert await store.download("out", tmp_path / "back") == sent
    assert folder.same_as(tmp_path / "back")


async def test_a_store_that_stays_away_is_unavailable_when_the_patience_is_over(own_s3: S3, folder: Folder) -> None:
    own_s3.stop()
    folder.add("file", 10)
    began = time.monotonic()
    async with own_s3.block(patience=1).open() as store:
        with pytest.raises(StoreUnavailable, match=r"could not upload 'out/file': .*asked again for 1 s.*raise") as e:
            await store.upload(folder.files, "out")
    assert time.monotonic() - began < 15
    assert "s3cret" not in str(e.value)


async def test_what_did_not_arrive_as_it_was_sent_is_sent_again(door: Door, folder: Folder) -> None:
    for name in ("one", "two", "three"):
        folder.add(name, 64)
    prefix = unique()
    spoiled = door.server.folder / "bucket" / prefix / "out/two"
    before: list[int] = []

    def spoil(method: str, path: str) -> None:
        # Once all are there, and before they are looked at.
        if method == "GET" and not before and spoiled.exists():
            before.append(len(door.requests))
            spoiled.write_bytes(b"other content of the same size, which only a checksum tells: ...")

    door.answer = spoil
    async with door.block(prefix).open() as store:
        await store.upload(folder.files, "out")
    assert before
    assert spoiled.read_bytes() == (folder.path / "two").read_bytes()
    assert sum(request.startswith("PUT") and "/two" in request for request in door.requests) == 2


async def test_marks_that_are_no_checksums_cost_one_look_and_nothing_is_sent_again(door: Door, folder: Folder) -> None:
    for number in range(20):
        folder.add(str(number), 64)
    # As a bucket with keys of its own for encryption answers.
    door.change = _other_marks
    async with door.block(unique()).open() as store:
        assert len(await store.upload(folder.files, "out")) == 20
    assert sum(request.startswith("PUT") for request in door.requests) == 20
    assert sum(request.startswith("GET") and "list-type" not in request for request in door.requests) == 1


def _other_marks(body: bytes) -> bytes:
    return re.sub(rb"(<ETag>[^<]*?)[0-9a-f]{32}", rb"\g<1>" + b"0123456789abcdef" * 2, body)


async def test_a_transfer_that_is_cut_off_leaves_no_object(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    if block.url.startswith("memory"):
        pytest.skip("memory is too fast to be cut off")
    folder.add("large", 200 * MIB)
    block = block.model_copy(update={"at_once": 1})
    async with block.open() as store:
        await store.write("warm", b"")
        uploading = asyncio.create_task(store.upload(folder.files, "out"))
        await asyncio.sleep(0.15)
        assert uploading.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert time.monotonic() - began < 5
        assert await store.entries("out") == []

        await store.upload(folder.files, "out")
        downloading = asyncio.create_task(store.download("out", tmp_path / "back"))
        await until(lambda: list((tmp_path / "back").glob(".*.partial")))
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading
        assert list((tmp_path / "back").iterdir()) == []


KILLED = """\
import asyncio, sys
from pathlib import Path
from prefect_jobs import ObjectStore

async def main():
    fields = {"url": sys.argv[1]}
    if sys.argv[3:]:
        fields["options"] = {"endpoint_url": sys.argv[3]}
        fields["credentials"] = {"key": sys.argv[4], "secret": sys.argv[5]}
    async with ObjectStore(**fields).open() as store:
        await store.write("begun", b"x")
        print("begun", flush=True)
        await store.upload([("large", Path(sys.argv[2]))], "out")
        print("done", flush=True)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_uploads_leaves_no_object(
    block: ObjectStore, folder: Folder, s3: S3
) -> None:
    if block.url.startswith("memory"):
        pytest.skip("memory ends with its process")
    large = folder.add("large", 400 * MIB)
    words = [block.url, large]
    if block.url.startswith("s3"):
        words += [str(block.options["endpoint_url"]), *block.credentials.get_secret_value().values()]
    with subprocess.Popen([sys.executable, "-c", KILLED, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "begun\n"
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert "done" not in process.stdout.read()
    async with block.open() as store:
        assert [entry.name for entry in await store.entries("")] == ["begun"]
        await store.delete("out")
        folder.add("large", 10)
        await store.upload(folder.files, "out")
        assert [entry.name for entry in await store.entries("out")] == ["large"]
