"""Documents of this project in a store: read whole, and held against what they should be."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from prefect_jobs.blocks.store import Store
from prefect_jobs.errors import StoreError
from prefect_jobs.manifest import Manifest
from prefect_jobs.model import Model

M = TypeVar("M", bound=Model)

_MOST_BYTES = 256 * 2**20


async def read_document(store: Store, key: str, kind: type[M]) -> M:
    """A document of a kind.

    Raises:
        NoSuchObject: there is none.
        StoreError: it is none of that kind, or the store refuses.
    """
    content = await store.read(key, _MOST_BYTES)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "its beginning"
        raise StoreError(
            f"{store.uri(key)} is not what prefect-jobs writes there: at {where}: {first['msg']}; see who else writes "
            "there, and run again what made it"
        ) from None


async def read_manifest(store: Store, prefix: str) -> Manifest:
    """The manifest of a run.

    Raises:
        NoSuchObject, StoreError: as `read_document`.
    """
    return await read_document(store, f"{prefix}/manifest.json", Manifest)
