"""Functions that are awaited in a running event loop and simply called without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


def both_ways(function: Callable[P, Coroutine[Any, Any, Any]]) -> Callable[P, Any]:
    """Make a coroutine function usable in scripts (``f()``) as in notebooks and programs (``await f()``)."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        coroutine = function(*args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(coroutine)
        return coroutine

    return call
