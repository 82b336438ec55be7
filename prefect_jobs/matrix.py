"""The runs of one step: every combination of some values of parameters, in an order that does not change."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from prefect_jobs.model import Model, Problem, refuse
from prefect_jobs.parameters import Value

# One step's runs; beyond that nobody looks at a table of them.
MOST_BRANCHES = 10_000

Branch = dict[str, Value]
Axis = Annotated[list[Value], Field(min_length=1)]


class Matrix(Model):
    """Every combination of the values of some parameters: a list of values for each parameter.

    Example:
        >>> Matrix(MODEL_CLASS=["svc", "forest"], n=[1, 2], exclude=[{"MODEL_CLASS": "svc", "n": 2}]).branches()
        [{'MODEL_CLASS': 'svc', 'n': 1}, {'MODEL_CLASS': 'forest', 'n': 1}, {'MODEL_CLASS': 'forest', 'n': 2}]
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Axis]

    include: list[Branch] = []
    """Further runs, each with the values given; they come after the combinations."""
    exclude: list[Branch] = []
    """Combinations to leave out: all that have the values given."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Matrix:
        refuse("Matrix", self._problems())
        return self

    @property
    def axes(self) -> dict[str, list[Value]]:
        """The values of each parameter."""
        return self.__pydantic_extra__

    def branches(self) -> list[Branch]:
        """The parameters of each run: the last parameter changes first, then come those that are included."""
        return [*self._combinations(), *self.include]

    def _combinations(self) -> Iterator[Branch]:
        left_out: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for some in self.exclude:
            left_out.setdefault(tuple(some), set()).add(tuple(map(_key, some.values())))
        for values in itertools.product(*self.axes.values()) if self.axes else ():
            branch = dict(zip(self.axes, values, strict=True))
            if not any(_keys(branch, names) in excluded for names, excluded in left_out.items()):
                yield branch

    def _problems(self) -> Iterator[Problem]:
        if not self.axes and not self.include:
            yield (), "expected a list of values for at least one parameter, or runs under include", {}
        size = math.prod(map(len, self.axes.values())) + len(self.include)
        if size > MOST_BRANCHES:
            yield (), f"expected at most {MOST_BRANCHES} runs, found {size}", {}
            return
        known: dict[str, set[str]] = {}
        for name, values in self.axes.items():
            known[name] = set()
            for place, value in enumerate(values):
                if _key(value) in known[name]:
                    yield (name, place), "is there twice; keep one", value
                known[name].add(_key(value))
        for place, left_out in enumerate(self.exclude):
            if unknown := [name for name in left_out if name not in self.axes]:
                yield ("exclude", place, unknown[0]), f"expected one of {', '.join(self.axes) or 'none'}", unknown[0]
            elif not left_out or not all(_key(value) in known[name] for name, value in left_out.items()):
                yield ("exclude", place), f"excludes nothing: the matrix has no such combination, found {left_out}", {}
        seen = set(map(_key, self._combinations()))
        for place, branch in enumerate(self.include):
            if _key(branch) in seen:
                yield ("include", place), f"is a run of the matrix already, found {branch}", {}
            seen.add(_key(branch))
        if not seen and (self.axes or self.include):
            yield ("exclude",), "leaves no run; expected one at least", {}


def _keys(branch: Branch, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The values of some parameters; None where the branch does not have them all."""
    return tuple(_key(branch[name]) for name in names) if names and branch.keys() >= set(names) else None


def _key(value: Any) -> str:
    """Values are the same where their JSON is: 1 is neither 1.0 nor true."""
    return json.dumps(value, sort_keys=True)
