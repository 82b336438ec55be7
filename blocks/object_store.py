"""The object store block: where inputs come from and outputs go, on whatever fsspec has a file system for."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from prefect.blocks.fields import SecretDict
from prefect.filesystems import RemoteFileSystem, WritableFileSystem
from pydantic import Field, field_validator

from prefect_jobs.blocks.engine import Tell
from prefect_jobs.blocks.sharing import Shared
from prefect_jobs.errors import StoreError
from prefect_jobs.storage import STORES

if TYPE_CHECKING:
    from prefect_jobs.blocks.store import Store

_CHECK_PATIENCE = 10.0


class ObjectStore(WritableFileSystem):
    """A bucket, or a part of one, that keeps what jobs take and leave. Prefect's own results can live there too.

    Example:
        Load a saved block:
        ```python
        from prefect_jobs.blocks.object_store import ObjectStore

        store = ObjectStore.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Object Store"
    _block_type_slug = "object-store"
    _description = "Keep inputs, outputs and checkpoints of jobs in a bucket: S3, Google, Azure, Oracle, or a folder."
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]
    _logo_url = RemoteFileSystem._logo_url  # type: ignore[assignment]

    url: str = Field(
        title="URL",
        description="Where it is: scheme://bucket/prefix, with the scheme s3, gs, az, oci, file or memory.",
        examples=["s3://bucket/jobs", "file:///srv/jobs"],
    )
    options: dict[str, Any] = Field(
        default={},
        title="Options",
        description="What the file system of fsspec for this scheme takes; nothing secret.",
        examples=[{"endpoint_url": "https://s3.example.org"}],
    )
    credentials: SecretDict | None = Field(
        default=None,
        title="Credentials",
        description="Secret options of the same file system; default: what the machine's environment has.",
        examples=[{"key": "...", "secret": "..."}],
    )
    at_once: int = Field(
        default=16,
        ge=1,
        le=256,
        title="At once",
        description="How many requests are under way at the same time.",
    )
    patience: float = Field(
        default=3600,
        ge=0,
        title="Patience",
        description="Seconds for which a store that does not answer is asked again before a transfer fails.",
    )

    @field_validator("url")
    @classmethod
    def _has_a_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in STORES:
            raise ValueError(f"expected a URL that begins with one of {', '.join(f'{name}://' for name in STORES)}")
        if parts.password is not None:
            raise ValueError("a URL is shown to everybody: put what is secret in it into credentials")
        if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
            raise ValueError("expected an absolute path after file://, such as file:///srv/jobs")
        if parts.scheme not in ("file", "memory") and not parts.netloc:
            raise ValueError(f"expected a bucket after {parts.scheme}://")
        if parts.query or parts.fragment:
            raise ValueError("expected neither ? nor # in the URL")
        return url

    @property
    def label(self) -> str:
        """The block as a person names it: ``object-store/state``, or its URL where it is not saved."""
        name = self._block_document_name
        return f"{self.get_block_type_slug()}/{name}" if name else self.url

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """The open store; all that open the same one in an event loop share its connections and its bound."""
        async with _OPEN.use(_Key(self)) as store:
            yield store

    async def read_path(self, path: str) -> bytes:
        """The content of an object below the url: Prefect's own way to read."""
        async with self.open() as store:
            return await store.read(path)

    async def write_path(self, path: str, content: bytes) -> None:
        """Make an object below the url: Prefect's own way to write."""
        async with self.open() as store:
            await store.write(path, content)

    async def check(self, tell: Tell = print) -> None:
        """Write, list, read and delete a small object below the url; says each step and its time.

        Raises:
            StoreError: a step failed; what the first one made is removed where that is possible.
        """
        folder, data = f"prefect-jobs-check-{uuid4().hex}", uuid4().bytes
        brief = self.model_copy(update={"patience": min(self.patience, _CHECK_PATIENCE)})
        async with brief.open() as store:
            with _timed("write", tell):
                await store.write(f"{folder}/object", data)
            try:
                with _timed("list", tell):
                    listed = [(entry.name, entry.size) for entry in await store.entries(folder)]
                with _timed("read", tell):
                    read = await store.read(f"{folder}/object")
            finally:
                with _timed("delete", tell):
                    await store.delete(folder)
            if listed != [("object", len(data))] or read != data or await store.entries(folder):
                raise StoreError(f"{self.label}: what is listed and read is not what was written; use another store")


@contextmanager
def _timed(step: str, tell: Tell) -> Iterator[None]:
    began = time.monotonic()
    yield
    tell(f"{step}: {(time.monotonic() - began) * 1000:.0f} ms")


@dataclass(frozen=True)
class _Key:
    """By what two blocks are the same store, and no more than that: it is kept for as long as the store is open."""

    block: ObjectStore = field(compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    @property
    def _digest(self) -> str:
        block = self.block
        secrets = block.credentials.get_secret_value() if block.credentials else None
        parts = [block.label, block.url, block.options, secrets, block.at_once, block.patience]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


def _open(key: _Key) -> Store:
    from prefect_jobs.blocks.store import Store

    return Store(key.block)


_OPEN: Shared[_Key, Store] = Shared(_open)
