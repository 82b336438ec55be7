"""The file system behind a store: reading, writing and listing, one call at a time. Everything here blocks.

Called in threads. A call that lasts looks at ``stop`` between two blocks, so that it can be ended from outside.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec.asyn

from prefect_jobs.errors import MissingExtraError, StoreError
from prefect_jobs.manifest import File

SMALL = 4 * 2**20
"""Bytes up to which a file goes in one request, and is in memory meanwhile."""
BLOCK = 8 * 2**20
"""Bytes of larger files that are in memory at a time."""
# S3 takes 10,000 parts; some are left for a file that grows while it is read.
_PARTS = 9_000
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARTIAL = re.compile(r"(^|/)\.[0-9a-f]{32}\.partial$")


def is_small(size: int | None) -> bool:
    """Whether a file goes in one request."""
    return size is not None and size <= SMALL


Tick = Callable[[int], None]


class Stopped(Exception):
    """Whoever wanted it has gone."""


class Entry(NamedTuple):
    """An object as a listing has it."""

    name: str
    """Below the prefix that was listed."""
    size: int
    """In bytes."""
    etag: str | None
    """The store's mark of this content, where it has one."""
    problem: str | None = None
    """Why it is not read, where it is not."""

    @property
    def is_partial(self) -> bool:
        """Whether it is the beginning of a file that somebody writes, or has died over."""
        return bool(_PARTIAL.search(self.name))

    @property
    def md5(self) -> str | None:
        """The mark, where it looks like the MD5 of the content. With some encryption it looks so and is none."""
        return self.etag if self.etag and re.fullmatch("[0-9a-f]{32}", self.etag) else None


class Sent(NamedTuple):
    """A file as it was when it was uploaded."""

    file: File
    md5: str | None


class Files:
    """The file system of a URL, made when it is first used."""

    def __init__(self, url: str, options: dict[str, Any], at_once: int) -> None:
        self.scheme = urlsplit(url).scheme
        self._url = url
        self._options = options
        self._at_once = at_once
        self._making = threading.Lock()
        self._fs: Any = None
        # fsspec's file system in memory is one dictionary of the whole process.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.scheme == "memory" else nullcontext()

    @property
    def fs(self) -> Any:
        """The file system of fsspec.

        Raises:
            MissingExtraError: its client is not installed.
        """
        with self._making:
            if self._fs is None:
                self._fs = self._make()
            return self._fs

    def _make(self) -> Any:
        try:
            kind = fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            # Extras are named as the schemes whose clients they bring.
            raise MissingExtraError(f"A store at {self.scheme}://", self.scheme) from error
        options = dict(self._options)
        if self.scheme == "s3":
            # A short outage is the client's business, a longer one the store's, which can be cancelled meanwhile.
            given = options.get("config_kwargs") or {}
            options["config_kwargs"] = {
                "max_pool_connections": self._at_once + 4,
                "connect_timeout": 5,
                "read_timeout": 60,
                "retries": {"mode": "standard", "total_max_attempts": 2},
                # Not every store that speaks S3 leaves out the checksum of the whole where it sends a part.
                "response_checksum_validation": "when_required",
            } | given
            # Some stores that speak S3 want all parts but the last of one size.
            options.setdefault("fixed_upload_size", True)
        if self.scheme == "file":
            options.setdefault("auto_mkdir", True)
        # Instances are shared within a process otherwise, credentials and all.
        fs = kind(**options, use_listings_cache=False, skip_instance_cache=True)
        if self.scheme == "s3":
            fs.retries = 1
        return fs

    def close(self) -> None:
        """Close its connections; the garbage collector would close them in whichever event loop it meets."""
        fs, self._fs = self._fs, None
        creator, session = getattr(fs, "_s3creator", None), getattr(fs, "_session", None)
        with suppress(Exception):
            if creator is not None:
                fsspec.asyn.sync(fs.loop, creator.__aexit__, None, None, None, timeout=5)
            elif session is not None:
                fsspec.asyn.sync(fs.loop, session.close, timeout=5)

    def path(self, key: str) -> str:
        """Where a key is, as the file system names it."""
        root = self.fs._strip_protocol(self._url).rstrip("/")
        return f"{root}/{key}" if key else root

    def entries(self, prefix: str, *, partial: bool = False) -> list[Entry]:
        """All that is below a prefix; an object of that very name is the entry with the name ''."""
        root = self.path(prefix)
        with self._turn:
            self.fs.invalidate_cache()
            found = self.fs.find(root, detail=True)
        entries = []
        for path, info in found.items():
            # Consoles make empty objects that stand for folders.
            if info.get("type") == "directory" or path.endswith("/"):
                continue
            name = "" if path == root else path[len(root) + 1 :]
            if self.scheme == "file" and not partial and _PARTIAL.search(path):
                continue
            etag = info.get("ETag") or info.get("etag")
            problem = self._problem_with(path, info) if self.scheme == "file" else None
            entries.append(Entry(name, int(info.get("size") or 0), str(etag).strip('"') if etag else None, problem))
        return sorted(entries)

    @property
    def _folder(self) -> str:
        """The folder of this machine that it is."""
        return self.path("") or "/"

    def _problem_with(self, path: str, info: dict[str, Any]) -> str | None:
        """Why something in a folder of this machine is not read. Who may write there may leave a link to anything."""
        if not info["islink"]:
            return None if info["type"] == "file" else "it is neither a file nor a folder"
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._folder)):
            return "it is a link out of the folder"
        return None if os.path.isfile(path) else "it is a link to no file"

    def size(self, key: str) -> int | None:
        """Bytes of an object, where the store tells."""
        with self._turn:
            self.fs.invalidate_cache()
            info = self.fs.info(self.path(key))
        if info.get("type") == "directory":
            raise FileNotFoundError(self.path(key))
        return None if info.get("size") is None else int(info["size"])

    def get(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from ``start`` to before ``end``."""
        if start >= end:
            return b""
        if self.scheme == "file":
            with opened_below(self._folder, self.path(key)) as file:
                file.seek(start)
                return file.read(end - start)
        with self._turn:
            return bytes(self.fs.cat_file(self.path(key), start=start, end=end))

    def put(self, key: str, data: bytes) -> None:
        """Make an object of some bytes: all of it or none of it."""
        if self.scheme == "file":
            with self._writing(key, BLOCK) as file:
                file.write(data)
            return
        with self._turn:
            self.fs.pipe_file(self.path(key), data)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is none the less removed."""
        with self._turn, suppress(FileNotFoundError):
            self.fs.rm_file(self.path(key))

    def delete_folder(self, prefix: str) -> None:
        """Remove a whole folder of a file system that has folders."""
        shutil.rmtree(self.path(prefix), ignore_errors=True)

    def send(self, name: str, source: Path, key: str, stop: threading.Event, tick: Tick) -> Sent:
        """Upload a file, which may not be a link; larger ones in blocks."""
        with opened(source) as file:
            size = os.fstat(file.fileno()).st_size
            if is_small(size):
                with local("read", source):
                    data = file.read()
                self.put(key, data)
                tick(len(data))
                md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
                return Sent(File(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()), md5)
            block = max(BLOCK, -(-size // (_PARTS * 2**20)) * 2**20)
            sha256, sent = hashlib.sha256(), 0
            try:
                with self._writing(key, block) as there:
                    while data := _block(file, source, block):
                        if stop.is_set():
                            raise Stopped
                        sha256.update(data)
                        there.write(data)
                        sent += len(data)
                        tick(len(data))
            except BaseException:
                tick(-sent)
                raise
        return Sent(File(name=name, size=sent, sha256=sha256.hexdigest()), None)

    def blocks(self, key: str, size: int | None) -> Iterator[bytes]:
        """The content of an object, in pieces that memory can hold."""
        if size is not None:
            for start in range(0, size, BLOCK):
                yield self.get(key, start, min(start + BLOCK, size))
            return
        with self.fs.open(self.path(key), "rb", block_size=0) as there:
            while data := there.read(BLOCK):
                yield data

    @contextmanager
    def _writing(self, key: str, block: int) -> Iterator[Any]:
        """A file in the store that is there as a whole at the end, and not at all when something fails."""
        path = self.path(key)
        if self.scheme == "file":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            partial = Path(path).with_name(f".{uuid.uuid4().hex}.partial")
            try:
                with partial.open("xb") as file:
                    yield file
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            return
        if self.scheme == "memory":
            yield (whole := io.BytesIO())
            self.put(key, whole.getvalue())
            return
        file = self.fs.open(path, "wb", block_size=block)
        try:
            yield file
            file.close()
        except BaseException:
            # Whatever closes it, the garbage collector too, would make an object of what has arrived so far.
            with suppress(Exception):
                file.discard()
            file.closed = True
            raise


@contextmanager
def opened(source: Path) -> Iterator[IO[bytes]]:
    """A plain file of this machine, opened for reading; no link is followed, and no pipe waited for."""
    with local("read", source):
        file = open(os.open(source, _NO_LINK), "rb")  # noqa: SIM115
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise StoreError(f"{str(source)!r} is no plain file, and only plain files go to a store; leave it out")
        yield file


def opened_below(root: str, path: str) -> IO[bytes]:
    """A plain file of a folder of this machine, opened for reading; links are followed that stay in the folder.

    Raises:
        StoreError: it leads out of the folder, or to no plain file.
    """
    root, real = os.path.realpath(root), os.path.realpath(path)
    if not Path(real).is_relative_to(root):
        raise StoreError(
            f"{path!r} leads out of {root!r} by a link, and nothing outside is read; put the file itself there, or "
            "name the place where it is"
        )
    # Step by step and without links, for whoever may write there may make one between the look and the opening.
    *folders, name = [root, *Path(real).relative_to(root).parts]
    at = None
    try:
        for folder in folders:
            inner = os.open(folder, _NO_LINK | os.O_DIRECTORY, dir_fd=at)
            if at is not None:
                os.close(at)
            at = inner
        file = open(os.open(name, _NO_LINK, dir_fd=at), "rb")  # noqa: SIM115
    finally:
        if at is not None:
            os.close(at)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise StoreError(f"{path!r} is no plain file, and nothing else is read; name another one")


@contextmanager
def local(what: str, path: Path) -> Iterator[None]:
    """What this machine's own disk refuses is not the store's doing, and never passes by itself."""
    try:
        yield
    except OSError as error:
        raise StoreError(_local_words(what, path, error)) from None


def _local_words(what: str, path: Path, error: OSError) -> str:
    said = f"could not {what} {str(path)!r} on this machine: {error.strerror or error}"
    if isinstance(error, FileExistsError | IsADirectoryError | NotADirectoryError):
        return f"{said}; a folder is where a file was expected, or a file where a folder was: choose another place"
    with suppress(OSError):
        folder = next(folder for folder in (path, *path.parents) if folder.exists())
        said += f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MiB free)"
    return f"{said}; free some space there, or mend the file's or folder's rights, and run it again"


def _block(file: IO[bytes], source: Path, size: int) -> bytes:
    with local("read", source):
        return file.read(size)
