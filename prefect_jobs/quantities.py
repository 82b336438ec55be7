"""Durations and resource quantities, kept as they were written.

A value remembers its text, so that a document read and written again is the same document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_DURATION_UNITS = (86_400.0, 3_600.0, 60.0, 1.0)
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_MULTIPLIERS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


class Measure:
    """A number with a unit: the text a person wrote, and its value in the base unit."""

    expects: ClassVar[str]
    examples: ClassVar[list[str | float]]
    bounds: ClassVar[dict[str, float]] = {"minimum": 0}
    __slots__ = ("source", "value")

    def __init__(self, source: str | float) -> None:
        self.source = source
        self.value = self._parse(str(source).strip())

    @classmethod
    def _parse(cls, text: str) -> float:
        raise NotImplementedError

    @classmethod
    def validate(cls, value: Any) -> Self:
        """Make one of what a person wrote; raises ValueError with what is expected."""
        if isinstance(value, cls):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"expected {cls.expects}")
        return cls(value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"

    def __str__(self) -> str:
        return str(self.source)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.source),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [{"type": "string"}, {"type": "number", **cls.bounds}],
            "description": cls.expects,
            "examples": cls.examples,
        }


class Duration(Measure):
    """A length of time: ``90``, ``"90s"``, ``"1h30m"``, ``"2d"``; a bare number is seconds."""

    expects = "a duration such as 90, '90s', '5m', '1h30m' or '2d'"
    examples = ["90s", "5m", "1h30m"]

    @classmethod
    def _parse(cls, text: str) -> float:
        if re.fullmatch(r"\d+(?:\.\d+)?", text):
            return float(text)
        match = _DURATION.fullmatch(text)
        if match is None or not any(match.groups()):
            raise ValueError(f"expected {cls.expects}")
        return sum(float(part) * unit for part, unit in zip(match.groups(), _DURATION_UNITS, strict=True) if part)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.value


class _Quantity(Measure):
    @classmethod
    def _parse(cls, text: str) -> float:
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise ValueError(f"expected {cls.expects}")
        return float(match[1]) * _MULTIPLIERS[match[2] or ""]


class Cpu(_Quantity):
    """Processor cores in Kubernetes' notation: ``2``, ``0.5``, ``"500m"``."""

    expects = "a number of CPU cores such as 2, 0.5 or '500m'"
    examples = [2, 0.5, "500m"]
    bounds = {"exclusiveMinimum": 0}

    @classmethod
    def _parse(cls, text: str) -> float:
        cores = super()._parse(text)
        if cores <= 0:
            raise ValueError("expected more than 0 CPU cores")
        return cores

    @property
    def cores(self) -> float:
        """How many cores; a fraction is a share of one core's time."""
        return self.value


class Memory(_Quantity):
    """An amount of memory in Kubernetes' notation: ``"512Mi"``, ``"4Gi"``, or a number of bytes."""

    expects = "an amount of memory such as '512Mi', '4Gi' or a number of bytes"
    examples = ["512Mi", "4Gi"]
    bounds = {"minimum": 2**20}

    @classmethod
    def _parse(cls, text: str) -> float:
        if text.endswith("m"):
            raise ValueError(f"expected {cls.expects}; 'm' is a thousandth, 'M' and 'Mi' are a million bytes")
        amount = super()._parse(text)
        if amount < 2**20:
            raise ValueError("expected at least 1Mi of memory; a plain number is bytes")
        return amount

    @property
    def bytes(self) -> int:
        """The amount in bytes."""
        return int(self.value)
