"""Flowers in a file: one in a line, its four measures and its kind."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

_HEAD = "sepal length,sepal width,petal length,petal width,kind"


class Flowers(NamedTuple):
    """Measures in centimetres, shape (flowers, 4), and kinds from 0 to 2, shape (flowers,)."""

    measures: np.ndarray
    kinds: np.ndarray


def save(flowers: Flowers, path: Path) -> None:
    np.savetxt(path, np.column_stack(flowers), fmt="%g", delimiter=",", header=_HEAD, comments="")


def load(path: Path) -> Flowers:
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return Flowers(table[:, :-1], table[:, -1].astype(int))
