"""A store that is open: bytes, files and folders go to it and come back, whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.store_download import Downloaded, download
from prefect_jobs.blocks.store_errors import secrets_in
from prefect_jobs.blocks.store_files import Entry, Files
from prefect_jobs.blocks.store_place import Place
from prefect_jobs.blocks.store_threads import Threads
from prefect_jobs.blocks.store_upload import upload
from prefect_jobs.errors import StoreError
from prefect_jobs.manifest import File, Manifest, problem_with
from prefect_jobs.storage import READABLE

if TYPE_CHECKING:
    from prefect_jobs.blocks.object_store import ObjectStore


class Store:
    """An open store. Keys are relative to the block's url; a call that fails in passing is made again.

    Raises (every call):
        StoreError: the store, or this machine's disk, refused.
        StoreUnavailable: it did not answer for as long as the block's patience lasts.
        MissingExtraError: the client of its URL is not installed.
    """

    def __init__(self, block: ObjectStore) -> None:
        secrets = block.credentials.get_secret_value() if block.credentials else {}
        self._options = {**block.options, **secrets}
        url = block.url.rstrip("/")
        files = Files(url, self._options, block.at_once)
        threads = Threads(block.label, block.at_once, block.patience, secrets_in(secrets))
        self._place = Place(url, block.label, files, threads, block.at_once)

    def __repr__(self) -> str:
        return f"Store({self._place.label!r}, {self._place.shown('')!r})"

    def uri(self, key: str) -> str:
        """The URI of a key, for a client that is not this one."""
        return self._place.uri(key)

    async def read(self, key: str, limit: int | None = None) -> bytes:
        """The content of an object.

        Raises:
            NoSuchObject: there is none.
            StoreError: it has more than ``limit`` bytes.
        """
        _check(key)
        files = self._place.files

        def call(stop: threading.Event) -> bytes:
            size = files.size(key) or 0
            if limit is not None and size > limit:
                raise StoreError(f"{self.uri(key)} has {size:,} bytes, and no more than {limit:,} are read of it")
            return files.get(key, 0, size)

        return await self._place.threads.ask(f"read {key!r}", call)

    async def write(self, key: str, data: bytes) -> None:
        """Make an object, or put another one in its place: all of it or none of it."""
        _check(key)
        await self._place.threads.ask(f"write {key!r}", lambda stop: self._place.files.put(key, data))

    async def send(self, path: Path, key: str, tell: Tell | None = None) -> None:
        """Make an object of a plain file of this machine: all of it or none of it."""
        _check(key)
        files = self._place.files
        await self._place.threads.ask(
            f"write {key!r}", lambda stop: files.send(key, path, key, stop, lambda size: None), tell
        )

    async def entries(self, prefix: str) -> list[Entry]:
        """What is below a prefix, by name; the prefix is a folder: ``a/b`` has nothing of ``a/bc``."""
        prefix = prefix.strip("/")
        found = await self._place.threads.ask(f"list {prefix!r}", lambda stop: self._place.files.entries(prefix))
        return [entry for entry in found if entry.name]

    async def delete(self, prefix: str) -> int:
        """Remove an object, or all that is below a prefix; how many objects that were."""
        _check(prefix)
        place = self._place
        found = await place.threads.ask(f"list {prefix!r}", lambda stop: place.files.entries(prefix, partial=True))
        await place.remove([f"{prefix}/{entry.name}" if entry.name else prefix for entry in found])
        if place.files.scheme == "file":
            await place.threads.ask(f"delete {prefix!r}", lambda stop: place.files.delete_folder(prefix))
        return len(found)

    async def upload(
        self,
        files: Iterable[tuple[str, Path]],
        prefix: str,
        tell: Tell | None = None,
        *,
        keep_others: bool = False,
    ) -> list[File]:
        """Upload files below a prefix and see that they arrived; whatever else was below it is removed.

        ``files`` are names below the prefix, and plain files of this machine. What it gives, in the order of the names,
        has sizes and checksums of what was read. With ``keep_others`` what somebody else put there stays, and is among
        what it gives, without a checksum. ``tell`` gets a line every ten seconds.
        """
        _check(prefix)
        return await upload(self._place, files, prefix, tell, keep_others=keep_others)

    async def download(
        self, source: str, folder: Path, expected: Manifest | None = None, tell: Tell | None = None
    ) -> Downloaded:
        """Download an object, or all that is below a prefix, into a folder; what it gives has the checksums.

        ``source`` is a key, or a URI of any store: one of the same kind is read with this store's options and
        credentials, every other one with what the environment has. A single object keeps the last part of its name.
        With ``expected``, all that the manifest names is downloaded and checked, and nothing else.

        Raises:
            NoSuchObject: nothing is there.
        """
        if "://" not in source:
            if source:
                _check(source)
            return await download(self._place, source, folder, expected, tell)
        place = self._at(source.rstrip("/"))
        try:
            return await download(place, "", folder, expected, tell)
        finally:
            await asyncio.to_thread(place.files.close)

    def _at(self, uri: str) -> Place:
        scheme = urlsplit(uri).scheme
        if scheme not in READABLE:
            schemes = ", ".join(f"{scheme}://" for scheme in READABLE)
            raise StoreError(f"a URI of the kind {scheme}:// cannot be read: expected one of {schemes}")
        # A store's keys are nobody else's business.
        options = self._options if scheme == self._place.files.scheme else {}
        return self._place.elsewhere(uri, Files(uri, options, self._place.at_once))

    async def close(self) -> None:
        """Let go of its connections and threads."""
        await asyncio.to_thread(self._place.files.close)
        self._place.threads.close()


def _check(key: str) -> None:
    if problem := problem_with(key):
        raise StoreError(f"{key!r} is no key of a store: it {problem}")
