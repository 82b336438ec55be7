"""What uploads and downloads share: the file system, its threads, and how many files go at once."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prefect_jobs.blocks.store_files import Files, is_small
from prefect_jobs.blocks.store_threads import LARGE_AT_ONCE, Threads, each

Item = TypeVar("Item")

AGAIN = 2
"""How often what did not arrive as it was sent is transferred again."""


@dataclass(frozen=True)
class Place:
    """One URL that files go to and come from."""

    url: str
    label: str
    files: Files
    threads: Threads
    at_once: int

    def uri(self, key: str) -> str:
        """The URI of a key."""
        return f"{self.url}/{key}" if key else self.url

    def shown(self, key: str) -> str:
        """The URI of a key for a person, without what only its owner may know."""
        return shown(self.uri(key))

    def elsewhere(self, uri: str, files: Files) -> Place:
        """The place of another URI, in the same threads."""
        threads = copy.copy(self.threads)
        threads.label = shown(uri)
        return Place(uri, threads.label, files, threads, self.at_once)

    async def each(
        self, items: Sequence[Item], size: Callable[[Item], int | None], do: Callable[[Item], Awaitable[None]]
    ) -> None:
        """Do something with every file, few at a time with those that do not go in one request."""
        small = [item for item in items if is_small(size(item))]
        large = [item for item in items if not is_small(size(item))]
        await each((small, self.at_once, do), (large, min(LARGE_AT_ONCE, self.at_once), do))

    async def remove(self, keys: list[str]) -> None:
        """Remove objects by their keys."""

        async def remove(key: str) -> None:
            await self.threads.ask(f"delete {key!r}", lambda stop: self.files.delete(key))

        await each((keys, self.at_once, remove))


def shown(uri: str) -> str:
    """A URI without user, password and query: a signed URL lets in whoever reads it."""
    scheme, mark, rest = uri.partition("://")
    address, _, query = rest.partition("#")[0].partition("?")
    host, slash, path = address.partition("/")
    user, _, machine = host.rpartition("@")
    return f"{scheme}{mark}{machine if ':' in user else host}{slash}{path}" + ("?***" if query else "")
