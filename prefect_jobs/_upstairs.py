"""The one way up: what a method of a ground-floor object calls on a higher floor.

``job.apply()`` reads well, but the ground floor imports nothing above it. The higher floor is imported when such a
method is called, which also keeps Prefect out of whatever only reads templates.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def upstairs(path: str) -> Callable[..., Any]:
    """The function at ``package.module:name`` of a higher floor."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
