"""The base of all models of the document: frozen, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Model(BaseModel):
    """A value that a person wrote: parsed once, never changed, never coerced."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


# A key that has a short form (a number, a text) and a long one (a mapping, a list) says by its kind which it is, so
# that an error speaks of the form that was written. The marks stand in the error's location and are left out of it.
PLAIN, LIST, MAPPING = "<plain>", "<list>", "<mapping>"


def kind_of(value: Any) -> str:
    """Which form of a key a value is."""
    if isinstance(value, dict | BaseModel):
        return MAPPING
    return LIST if isinstance(value, list) else PLAIN


ByKind = Discriminator(kind_of)


Problem = tuple[tuple[str | int, ...], str, Any]
"""Where below a model something is wrong, what is expected there, and what was found."""


def refuse(title: str, problems: Iterable[Problem]) -> None:
    """Refuse a model for what its keys say together, each problem at its own key; no problem is no error.

    For validators of a whole model, whose plain errors would stand at the model and not at the key.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{words}", {"words": words}), loc=where, input=found)
        for where, words, found in problems
    ]
    if details:
        raise ValidationError.from_exception_data(title, details)
