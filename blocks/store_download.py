"""Downloading an object or a prefix into a folder: nothing leaves the folder, nothing is there by half."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.store_files import Entry, Files, Stopped, Tick, is_small, local
from prefect_jobs.blocks.store_place import AGAIN, Place
from prefect_jobs.blocks.store_progress import Progress
from prefect_jobs.blocks.store_threads import logger
from prefect_jobs.errors import NoSuchObject, StoreError
from prefect_jobs.manifest import File, Manifest, problem_with

_MOST_TOLD = 20


@dataclass(frozen=True)
class _Wanted:
    name: str
    key: str
    size: int | None
    sha256: str | None = None


class Downloaded(list[File]):
    """The files that were downloaded, in the order of their names."""

    def __init__(self, files: Iterable[File], *, single: bool) -> None:
        super().__init__(sorted(files, key=lambda file: file.name))
        self.single = single
        """Whether the source was one object, which keeps the last part of its name, and no folder of objects."""


async def download(place: Place, source: str, folder: Path, expected: Manifest | None, tell: Tell | None) -> Downloaded:
    """Download what is at a key, or below it."""
    wanted, single = (_named(source, expected), False) if expected else await _found(place, source, tell)
    size = sum(file.size or 0 for file in wanted)
    await place.threads.ask("look at this machine's disk", lambda stop: _make_room(folder, wanted, size))
    progress = Progress("downloaded", len(wanted), size)
    got: list[File] = []

    async def fetch(file: _Wanted) -> None:
        def call(stop: threading.Event) -> File | None:
            return _fetch(place.files, file, folder, stop, progress.add)

        what, large = f"download {place.shown(file.key)!r}", not is_small(file.size)
        for _ in range(1 + AGAIN):
            if arrived := await place.threads.ask(what, call, tell, large=large):
                got.append(arrived)
                progress.done()
                return
        raise StoreError(
            f"{place.shown(file.key)} is not what was written there: its size or checksum is another. The file "
            "was not kept; run again what made it"
        )

    async with progress.telling(tell):
        await place.each(wanted, lambda file: file.size, fetch)
    return Downloaded(got, single=single)


def _named(source: str, expected: Manifest) -> list[_Wanted]:
    above = f"{source}/" if source else ""
    return [_Wanted(file.name, f"{above}{file.name}", file.size, file.sha256) for file in expected.files]


async def _found(place: Place, source: str, tell: Tell | None) -> tuple[list[_Wanted], bool]:
    """What is there, and whether it is a single object. Whoever may write there may have given an object any name."""
    uri = place.uri(source)
    if place.files.scheme.startswith("http"):
        wanted, single = [_Wanted(unquote(urlsplit(uri).path).rpartition("/")[2], source, None)], True
    else:
        entries = await _listed(place, source, tell or logger.warning)
        above = f"{source}/" if source else ""
        wanted = [_Wanted(entry.name, f"{above}{entry.name}", entry.size) for entry in entries if entry.name]
        if single := not wanted:
            wanted = [_Wanted(uri.rpartition("/")[2], source, entries[0].size)]
    for file in wanted:
        if problem := problem_with(file.name):
            raise StoreError(
                f"{place.shown(source)} has an object that cannot be downloaded: its name {file.name!r} {problem}. "
                "Nothing was downloaded; remove it from the store, or see who put it there"
            )
    return wanted, single


async def _listed(place: Place, source: str, tell: Tell) -> list[Entry]:
    """What the store says is there and can be read; the rest is told."""
    entries = await place.threads.ask(f"list {place.shown(source)!r}", lambda stop: place.files.entries(source))
    problems = [(entry.name, entry.problem) for entry in entries if entry.problem]
    if len(problems) == len(entries):
        why = "".join(f" that is read; of {name or place.shown(source)!r}: {why}" for name, why in problems[:1])
        raise NoSuchObject(f"{place.label}: nothing is at {place.shown(source)} or below it{why}; check the name")
    for name, why in problems[:_MOST_TOLD]:
        tell(f"Not taken from {place.shown(source)}: {name!r}, because {why}")
    if len(problems) > _MOST_TOLD:
        tell(f"Not taken from {place.shown(source)}: {len(problems) - _MOST_TOLD:,} more")
    return [entry for entry in entries if not entry.problem]


def _make_room(folder: Path, wanted: list[_Wanted], size: int) -> None:
    """Make the folder, and see that all has its place there.

    Raises:
        StoreError: a link that is there already leads out of it, or the disk is too full.
    """
    with local("write to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        real = folder.resolve()
        for parent in sorted({(folder / file.name).parent for file in wanted}):
            if not Path(os.path.realpath(parent)).is_relative_to(real):
                raise StoreError(
                    f"{str(parent)!r} leads out of {str(folder)!r} by a link, and nothing was downloaded; download "
                    "into an empty folder"
                )
        free = shutil.disk_usage(folder).free
    if free < size:
        raise StoreError(
            f"{size / 2**20:,.0f} MiB cannot be downloaded to {str(folder)!r}: {free / 2**20:,.0f} MiB are free there; "
            "free some space, and run it again"
        )


def _fetch(files: Files, wanted: _Wanted, folder: Path, stop: threading.Event, tick: Tick) -> File | None:
    """One file, or None where it is another one than is wanted."""
    target = folder / wanted.name
    with local("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{uuid.uuid4().hex}.partial"
        out = partial.open("xb")
    sha256, size = hashlib.sha256(), 0
    try:
        with out:
            for data in files.blocks(wanted.key, wanted.size):
                if stop.is_set():
                    raise Stopped
                with local("write", target):
                    out.write(data)
                    out.flush()
                sha256.update(data)
                size += len(data)
                tick(len(data))
        if wanted.size not in (None, size) or wanted.sha256 not in (None, sha256.hexdigest()):
            tick(-size)
            return None
        with local("write", target):
            partial.replace(target)
    except BaseException:
        tick(-size)
        raise
    finally:
        partial.unlink(missing_ok=True)
    return File(name=wanted.name, size=size, sha256=sha256.hexdigest())
