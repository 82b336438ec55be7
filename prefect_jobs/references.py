"""References in a document: ``{{ name }}`` in a text, and what stands there when a run is made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

# The names of steps may hold a hyphen, those of parameters are variables.
_REFERENCE = re.compile(r"\{\{\s*(steps\.[\w.-]+|[A-Za-z_][\w.]*)\s*\}\}")


def references(value: Any) -> Iterator[str]:
    """The names that ``{{ name }}`` refers to in a text, or in the texts of a list or a mapping, in their order."""
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references(item)


def reference_alone(value: Any) -> str | None:
    """The name where a value is one reference and nothing else."""
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else None


def as_text(value: Any) -> str:
    """A value as it stands in an environment variable or an argument: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def in_text(text: str, value_of: Callable[[str], Any]) -> str:
    """A text with each reference replaced by the value that its name has; everything else stays as it is.

    A reference for which ``value_of`` raises KeyError stays too: somebody else fills it in.
    """

    def replaced(match: re.Match[str]) -> str:
        try:
            return as_text(value_of(match[1]))
        except KeyError:
            return match[0]

    return _REFERENCE.sub(replaced, text)


def filled(value: Any, value_of: Callable[[str], Any]) -> Any:
    """A value, and whatever it holds, with its references replaced; one that stands alone keeps its value's type."""
    if isinstance(value, dict):
        return {key: filled(item, value_of) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, value_of) for item in value]
    if not isinstance(value, str):
        return value
    if (name := reference_alone(value)) is not None:
        try:
            return value_of(name)
        except KeyError:
            return value
    return in_text(value, value_of)


def part_of(value: Any, key: str) -> Any:
    """What a dotted key names in a JSON value: ``scores.test`` or ``files.0``.

    Raises:
        LookupError: it names nothing.
    """
    for part in key.split("."):
        if isinstance(value, dict):
            value = value[part]
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            raise LookupError(part)
    return value
