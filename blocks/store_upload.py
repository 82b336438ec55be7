"""Uploading a folder's files, and seeing that what is in the store then is what was sent."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.store_files import Entry, Sent, is_small, local
from prefect_jobs.blocks.store_place import AGAIN, Place
from prefect_jobs.blocks.store_progress import Progress
from prefect_jobs.errors import StoreError
from prefect_jobs.manifest import File, problem_with


class _Source(NamedTuple):
    name: str
    path: Path
    size: int


async def upload(
    place: Place, files: Iterable[tuple[str, Path]], prefix: str, tell: Tell | None, *, keep_others: bool
) -> list[File]:
    """Upload files below a prefix; what it gives is in the order of the names."""
    items = sorted(files)
    for name, _ in items:
        if problem := problem_with(name):
            raise StoreError(f"the file {name!r} cannot be uploaded: its name {problem}; rename it or leave it out")
    sources = await place.threads.ask("look at the files", lambda stop: _sources(items))
    progress = Progress("uploaded", len(sources), sum(source.size for source in sources))
    sent: dict[str, Sent] = {}

    async def send(source: _Source) -> None:
        key = f"{prefix}/{source.name}"

        def call(stop: threading.Event) -> Sent:
            return place.files.send(source.name, source.path, key, stop, progress.add)

        sent[source.name] = await place.threads.ask(f"upload {key!r}", call, tell, large=not is_small(source.size))
        progress.done()

    waiting, wrong = sources, set[str]()
    async with progress.telling(tell):
        for _ in range(1 + AGAIN):
            await place.each(waiting, lambda source: source.size, send)
            there = await place.threads.ask(f"list {prefix!r}", lambda stop: place.files.entries(prefix, partial=True))
            others = [entry for entry in there if entry.name and entry.name not in sent]
            kept = [entry for entry in others if keep_others and _is_whole(entry)]
            await place.remove([f"{prefix}/{entry.name}" for entry in others if entry not in kept])
            wrong = await _wrong(place, prefix, sent, there)
            if not wrong:
                found = [one.file for one in sent.values()] + [File(name=each.name, size=each.size) for each in kept]
                return sorted(found, key=lambda file: file.name)
            waiting = [source for source in sources if source.name in wrong]
    raise StoreError(
        f"{place.label}: {len(wrong):,} of {len(items):,} files below {prefix!r} are not in the store as they were "
        f"sent, such as {min(wrong)!r}; see whether somebody else writes there, and run it again"
    )


def _is_whole(entry: Entry) -> bool:
    """Whether it is something that can be read back by its name."""
    return not (entry.is_partial or entry.problem or problem_with(entry.name))


def _sources(items: list[tuple[str, Path]]) -> list[_Source]:
    sources = []
    for name, path in items:
        with local("read", path):
            sources.append(_Source(name, path, path.lstat().st_size))
    return sources


async def _wrong(place: Place, prefix: str, sent: dict[str, Sent], there: list[Entry]) -> set[str]:
    """The names of files that the store has not as they were sent."""
    entries = {entry.name: entry for entry in there}
    wrong, doubtful = set[str](), list[Entry]()
    for name, one in sent.items():
        entry = entries.get(name)
        if entry is None or entry.size != one.file.size:
            wrong.add(name)
        elif entry.md5 and one.md5 and entry.md5 != one.md5:
            doubtful.append(entry)
    return wrong | await _misread(place, prefix, sent, doubtful)


async def _misread(place: Place, prefix: str, sent: dict[str, Sent], doubtful: list[Entry]) -> set[str]:
    """Those of some entries that are read other than they were sent."""
    wrong: set[str] = set()
    for entry in doubtful:
        key = f"{prefix}/{entry.name}"
        data = await place.threads.ask(f"read {key!r}", lambda stop: place.files.get(key, 0, entry.size))  # noqa: B023
        if hashlib.sha256(data).hexdigest() == sent[entry.name].file.sha256:
            # Some ways of encryption give marks that look like an MD5 and are none: of those, none says anything.
            return wrong
        wrong.add(entry.name)
    return wrong
