"""What is wrong with a value, said for people: the words of validation errors, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from prefect_jobs.model import LIST, MAPPING, PLAIN
from prefect_jobs.names import NAME

Location = tuple[str | int, ...]
_MARKS = {PLAIN, LIST, MAPPING, "[key]"}


def location(found: Mapping[str, Any]) -> Location:
    """Where an error of pydantic is, in terms of the keys that a person wrote."""
    return tuple(part for part in found["loc"] if part not in _MARKS)


def complaint(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    """An error of pydantic about a value for ``model``: what is expected, and what was found."""
    if found["type"] == "extra_forbidden":
        return unknown_key(model, location(found)[:-1])
    if found["type"] == "missing":
        return "is missing"
    if found["type"] == "too_short":
        least = found["ctx"]["min_length"]
        return f"expected at least {least} item{'' if least == 1 else 's'}"
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "string_pattern_mismatch" and found["ctx"]["pattern"] == NAME:
        message = "expected up to 63 letters, digits, '.', '_' and '-', a letter or digit first and last"
    for theirs, ours in (
        ("Input should be greater", "expected a value greater"),
        ("Input should be less", "expected a value less"),
        ("Input should be", "expected"),
        ("a valid dictionary or instance of", "a mapping for"),
        ("a valid dictionary", "a mapping"),
    ):
        message = message.replace(theirs, ours)
    message = message[0].lower() + message[1:]
    shown = repr(found["input"])
    if isinstance(found["input"], dict | list | BaseModel) or shown in message:
        return message
    return f"{message}, found {shown}"


def unknown_key(model: type[BaseModel], path: Location = ()) -> str:
    """What a mapping at a path below a model takes, for somebody who wrote something else."""
    for part in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if isinstance(part, str) and part in fields:
            model = _model_in(fields[part].annotation) or model
    known = (field.alias or name for name, field in model.model_fields.items() if not field.exclude)
    return f"unknown key; expected one of {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in a type: Timeouts in ``Duration | Timeouts``, Parameter in ``dict[str, Parameter]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
