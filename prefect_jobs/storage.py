"""Object storage as a document names it: URIs of inputs, and the store in which a run's state lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from prefect_jobs.model import Model

STORE = "store"
"""The scheme of what lies below the job's own store: ``store://datasets/iris.csv``."""
STEP = "step"
"""The scheme of what a pipeline hands from a step to those that need it."""
STORES = ("s3", "gs", "az", "oci", "file", "memory")
"""The schemes that a store can be made of."""
READABLE = (*STORES, "http", "https")
"""The schemes that a store can read from."""
_SCHEMES = (*READABLE, STORE, STEP)

Checkpoint = Literal["run", "job"]


def check_uri(uri: str) -> str:
    """Refuse what is no URI of an object or a prefix, and what carries a password."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme not in _SCHEMES:
        raise ValueError(f"expected a URI such as s3://bucket/iris.csv; it may begin with {', '.join(_SCHEMES[:-1])}")
    if not rest.strip("/"):
        raise ValueError(f"expected a bucket or a path behind {scheme}://")
    if "@" in rest.partition("/")[0]:
        raise ValueError("expected a URI without a user or password; credentials belong in an Object Store block")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("expected an absolute path, with three slashes: file:///srv/data/iris.csv")
    if not uri.isprintable() or ".." in rest.split("/"):
        raise ValueError("expected a URI without '..' and without control characters")
    return uri


Uri = Annotated[str, AfterValidator(check_uri)]
StoreName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", examples=["state"])]


def run_key(job: str, run_id: UUID, *parts: str) -> str:
    """The key of something that a run keeps in its job's store."""
    return "/".join((job, str(run_id), *parts))


class Store(Model):
    """The store in which a run's state lives."""

    block: StoreName
    """Name of the Object Store block."""
    credentials: bool = False
    """Whether the container gets the store's credentials, as the environment variables that its clients know."""


def input_problems(inputs: dict[str, str], has_store: bool) -> Iterator[tuple[str, str, str]]:
    """What cannot be staged: the input, what is wrong, and its URI."""
    for name, uri in inputs.items():
        if uri.startswith((f"{STORE}://", f"{STEP}://")) and not has_store:
            yield name, "lies below the job's store, and the job has none; set store", uri
