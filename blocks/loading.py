"""From the name in a job (``docker/local``) to the block, saved or with its defaults."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.errors import NotFoundError, TemplateError

_TYPES = {"process": "prefect_jobs.blocks.process:Process", "docker": "prefect_jobs.blocks.docker:Docker"}


async def saved_infrastructures(client: PrefectClient) -> list[str]:
    """Every infrastructure there is by name: each type with its defaults, and the saved blocks of these types."""
    names = list(_TYPES)
    for kind in _TYPES:
        # A type that was never registered has no documents.
        with suppress(ObjectNotFound):
            documents = await client.read_block_documents_by_type(kind)
            names += [f"{kind}/{document.name}" for document in documents if document.name]
    return names


async def load_infrastructure(reference: str) -> Infrastructure:
    """The infrastructure block that a job names: ``type`` with its defaults, or the saved ``type/name``.

    Raises:
        TemplateError: a type that this release does not have.
        NotFoundError: no block of that name is saved.
        MissingExtraError: the type needs an extra that is not installed.
    """
    kind, _, name = reference.partition("/")
    if kind not in _TYPES:
        raise TemplateError(f"infrastructure {reference!r}: this release has {' and '.join(_TYPES)}")
    module, _, attribute = _TYPES[kind].partition(":")
    block_type: type[Infrastructure] = getattr(import_module(module), attribute)
    if not name:
        return block_type()
    try:
        return await block_type.aload(name)
    except ValueError as error:
        raise NotFoundError(
            f"there is no infrastructure block {reference!r}: make one in the Prefect UI (Blocks), or in Python: "
            f"{block_type.__name__}(...).save({name!r}). Prefect said: {error}"
        ) from error


async def load_store(reference: str) -> ObjectStore:
    """The saved object store block that a job names: ``state``, or ``object-store/state``.

    Raises:
        NotFoundError: no block of that name is saved.
    """
    name = reference.removeprefix(f"{ObjectStore.get_block_type_slug()}/")
    try:
        return await ObjectStore.aload(name)
    except ValueError as error:
        raise NotFoundError(
            f"there is no object store block {name!r}: make one in the Prefect UI (Blocks), or in Python: "
            f"ObjectStore(url=...).save({name!r}). Prefect said: {error}"
        ) from error
