"""What all users within one event loop share: made by the first, closed by the last, or kept open between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary


class Closable(Protocol):
    """Something that holds sockets or tasks."""

    async def close(self) -> None:
        """Let go of them."""


T = TypeVar("T", bound=Closable)
K = TypeVar("K", bound=Hashable)


@dataclass
class _Use(Generic[T]):
    thing: T
    users: int = 0


_holders: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncExitStack] = WeakKeyDictionary()


@dataclass
class Shared(Generic[K, T]):
    """One thing for each key in each event loop."""

    make: Callable[[K], T]
    """Called within the event loop."""
    _uses: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[K, _Use[T]]] = field(default_factory=WeakKeyDictionary)

    @asynccontextmanager
    async def use(self, key: K) -> AsyncIterator[T]:
        """The thing of a key, for as long as this goes on."""
        loop = asyncio.get_running_loop()
        uses = self._uses.setdefault(loop, {})
        use = uses.get(key)
        if use is None:
            use = uses[key] = _Use(self.make(key))
            if (holder := _holders.get(loop)) is not None:
                await holder.enter_async_context(self.use(key))
        use.users += 1
        try:
            yield use.thing
        finally:
            use.users -= 1
            if use.users == 0:
                del uses[key]
                await use.thing.close()


@asynccontextmanager
async def holding() -> AsyncIterator[None]:
    """Keep open whatever is shared within this event loop, also while nobody uses it."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as holder:
        _holders[loop] = holder
        try:
            yield
        finally:
            del _holders[loop]
