"""Typed parameters of a job: what a run may be asked for, checked before it starts.

The vocabulary is JSON Schema's, because the same definition becomes the run form of the Prefect UI.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from prefect_jobs.errors import OverrideError, TemplateError
from prefect_jobs.model import Model, Problem, refuse
from prefect_jobs.references import in_text

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]
ParameterType = Literal["string", "number", "integer", "boolean", "list"]

PARAMETER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def has_type(value: Any, expected: str) -> bool:
    """Whether a value is of a JSON type; a boolean is not a number, and neither are NaN and the infinities."""
    match expected:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case _:
            return isinstance(value, list)


class Parameter(Model):
    """One typed parameter; without a default it is required."""

    type: ParameterType = "string"
    """What kind of value it takes."""
    description: str | None = None
    """Shown beside the field of the run form."""
    default: Value | None = None
    """Used where a run gives none; without it a run must give one."""
    enum: list[Scalar] | None = Field(default=None, min_length=1)
    """The only values allowed (for a list: the only values of its items)."""
    minimum: float | None = None
    """The smallest number allowed."""
    maximum: float | None = None
    """The largest number allowed."""
    pattern: str | None = None
    """A regular expression that a string must match somewhere."""
    items: Literal["string", "number", "integer", "boolean"] = "string"
    """The type of a list's items."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Parameter:
        refuse("Parameter", self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """What the keys of a parameter say against each other."""
        readable = True
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                readable = False
                yield ("pattern",), f"expected a regular expression ({error})", self.pattern
            if self.type != "string":
                yield ("pattern",), f"belongs to a string, not to type {self.type!r}", self.pattern
        for bound in ("minimum", "maximum"):
            if (value := getattr(self, bound)) is not None and self.type not in ("number", "integer"):
                yield (bound,), f"belongs to a number or an integer, not to type {self.type!r}", value
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            yield ("minimum",), f"is above maximum {self.maximum:g}", self.minimum
        if "items" in self.model_fields_set and self.type != "list":
            yield ("items",), f"belongs to a list, not to type {self.type!r}", self.items
        scalar_type = self.items if self.type == "list" else self.type
        for choice in self.enum or []:
            if not has_type(choice, scalar_type):
                yield ("enum",), f"expected values of type {scalar_type!r}", choice
        if readable and self.default is not None and (problem := self.problem_with(self.default)):
            yield ("default",), problem, self.default

    @property
    def required(self) -> bool:
        """Whether a run must give a value."""
        return self.default is None

    def problem_with(self, value: Any) -> str | None:
        """What is wrong with a value, or None; says what is expected."""
        if not has_type(value, self.type):
            return f"expected type {self.type!r}, found {type(value).__name__}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(value, list) and not has_type(item, self.items):
                return f"expected items of type {self.items!r}, found {item!r}"
            if self.enum is not None and item not in self.enum:
                return f"expected one of {', '.join(map(repr, self.enum))}, found {item!r}"
        if self.minimum is not None and value < self.minimum:
            return f"expected at least {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            return f"expected at most {self.maximum:g}"
        if self.pattern is not None and not re.search(self.pattern, value):
            return f"expected a match of {self.pattern!r}"
        return None

    def read(self, text: str) -> Value:
        """The value that a person typed: a string stays as it is, everything else is JSON.

        Raises:
            ValueError: the text is no JSON of the parameter's type; the message shows what is.
        """
        if self.type == "string":
            return text
        try:
            value: Value = json.loads(text)
        except ValueError:
            value = text
        if not has_type(value, self.type):
            raise ValueError(f"{text!r} does not read as type {self.type!r}; write it as JSON, such as {self._shown}")
        return value

    @property
    def _shown(self) -> str:
        """A value of its type as a person types it."""
        if self.type != "list":
            return _SHOWN[self.type]
        return "'[{0}, {0}]'".format(_SHOWN[self.items])

    def json_schema(self) -> dict[str, Any]:
        """The parameter as JSON Schema, as the run form and the server's check take it."""
        schema: dict[str, Any] = {"type": "array" if self.type == "list" else self.type}
        scalar: dict[str, Any] = {} if self.enum is None else {"enum": list(self.enum)}
        if self.type == "list":
            schema["items"] = {"type": self.items, **scalar}
        else:
            schema |= scalar
        for key in ("description", "default", "minimum", "maximum", "pattern"):
            if (value := getattr(self, key)) is not None:
                schema[key] = value
        return schema


Parameters = dict[str, Parameter]
_SHOWN = {"string": '"text"', "number": "0.5", "integer": "3", "boolean": "true"}


def check_name(name: str, taken: frozenset[str]) -> None:
    """Refuse a parameter name that cannot be an environment variable, or that means something else.

    Raises:
        TemplateError: with what is expected.
    """
    if not PARAMETER_NAME.fullmatch(name):
        raise TemplateError("expected a letter, then letters, digits and underscores")
    if keyword.iskeyword(name):
        raise TemplateError(
            f"{name!r} is a word of Python's own, which Prefect cannot hand to a flow; choose another one"
        )
    if name in taken:
        raise TemplateError(
            f"{name!r} means something else where a run is started, such as an override; choose another one"
        )


def resolve(parameters: Parameters, given: dict[str, Any], owner: str) -> dict[str, Value]:
    """The value of every parameter of a run: what was given, else the default; ``owner`` is ``job 'train'``.

    Raises:
        OverrideError: an unknown name, a wrong value or a missing one; the message names it.
    """
    if unknown := sorted(given.keys() - parameters.keys()):
        known = ", ".join(parameters) or "none"
        raise OverrideError(f"{owner} has no parameter {', '.join(map(repr, unknown))}; it has: {known}")
    values: dict[str, Value] = {}
    for name, parameter in parameters.items():
        value = given.get(name)
        value = parameter.default if value is None else value
        if value is None:
            raise OverrideError(f"{owner} needs a value for parameter {name!r}, which has no default")
        if problem := parameter.problem_with(value):
            raise OverrideError(f"parameter {name!r} of {owner}: {value!r} is not allowed: {problem}")
        values[name] = value
    return values


def read_texts(parameters: Parameters, texts: dict[str, str], owner: str) -> dict[str, Any]:
    """Values that a person typed, each read by the type of its parameter; unknown names are left to `resolve`.

    Raises:
        OverrideError: a text that is not of its parameter's type; the message names parameter, type and text.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            values[name] = parameters[name].read(text) if name in parameters else text
        except ValueError as error:
            raise OverrideError(f"parameter {name!r} of {owner}: {error}") from None
    return values


def substitute(text: str, values: dict[str, Value]) -> str:
    """A text with each ``{{ name }}`` replaced by the parameter's value; everything else stays as it is.

    Raises:
        OverrideError: a name that is no parameter.
    """

    def value_of(name: str) -> Value:
        if name not in values:
            known = ", ".join(values) or "none"
            raise OverrideError(f"{{{{ {name} }}}} in {text!r} names no parameter; the job has: {known}")
        return values[name]

    return in_text(text, value_of)
