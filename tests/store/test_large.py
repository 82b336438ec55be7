"""Large files: flat memory, a loop that goes on, lines of progress."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from folders import Folder
from s3 import S3, unique
from watched import MIB, watched

from prefect_jobs import ObjectStore
from prefect_jobs.blocks import store_progress

# Alone it is below 0.2 s; beside other tests each thread waits for the others.
LAG = 2.0
GIB = os.environ.get("PREFECT_JOBS_STORE_GIB")
SIZE = int(float(GIB) * 1024) * MIB if GIB else 300 * MIB
# What one large transfer, and four of them, may hold at once with the buffers of the client.
ONE, FOUR = 128 * MIB, 256 * MIB


async def warm(block: ObjectStore) -> None:
    """What a client imports when it is first used is no matter of size."""
    async with block.open() as store:
        await store.write("warm", b"x")
        await store.read("warm")


@pytest.mark.timeout(1200)
async def test_a_large_file_takes_no_more_memory_and_the_loop_goes_on(
    s3: S3, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_progress, "EACH", 0.3)
    folder.add("large", SIZE)
    block, told = s3.block(unique()), list[str]()
    await warm(block)
    async with block.open() as store, watched() as seen:
        began = time.monotonic()
        sent = await store.upload(folder.files, "out", told.append)
        up = time.monotonic() - began
        assert await store.download("out", tmp_path / "back", tell=told.append) == sent
        down = time.monotonic() - began - up
        await store.delete("out")
    print(f"{SIZE // MIB} MiB up in {up:.1f} s, down in {down:.1f} s, {seen}")
    assert sent[0].size == SIZE
    assert seen.memory < ONE
    assert seen.lag < LAG
    for verb in ("uploaded", "downloaded"):
        lines = [line for line in told if line.startswith(verb)]
        assert len(lines) >= 2
        for line in lines:
            assert re.fullmatch(rf"{verb} [01] of 1 files, [\d,]+ of {SIZE // MIB:,} MiB, [\d,.]+ MiB/s", line)
        assert lines[-1].startswith(f"{verb} 1 of 1 files, {SIZE // MIB:,} of ")


async def test_many_large_files_at_once_take_no_more_memory_than_four(s3: S3, folder: Folder, tmp_path: Path) -> None:
    for number in range(24):
        folder.add(str(number), 20 * MIB)
    block = s3.block(unique())
    await warm(block)
    async with block.open() as store, watched() as seen:
        sent = await store.upload(folder.files, "out")
        assert await store.download("out", tmp_path / "back") == sent
        await store.delete("out")
    print(seen)
    assert seen.memory < FOUR


async def test_many_small_files_do_not_keep_the_loop(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    for number in range(1000):
        folder.add(str(number), 2000)
    await warm(block)
    async with block.open() as store, watched() as seen:
        await store.upload(folder.files, "out")
        await store.download("out", tmp_path / "back")
        await store.delete("out")
    assert seen.lag < LAG


async def test_a_short_transfer_says_nothing(block: ObjectStore, folder: Folder, tmp_path: Path) -> None:
    folder.add("file", 10)
    told: list[str] = []
    async with block.open() as store:
        await store.upload(folder.files, "out", told.append)
        await store.download("out", tmp_path / "back", tell=told.append)
    assert told == []
