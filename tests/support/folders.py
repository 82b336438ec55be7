"""Folders with files of random content."""

from __future__ import annotations

import os
from pathlib import Path


class Folder:
    """A folder with files of random content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir()

    def add(self, name: str, size: int) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, 2**20):
                file.write(os.urandom(min(2**20, size - start)))
        return path

    @property
    def files(self) -> list[tuple[str, Path]]:
        return [(str(path.relative_to(self.path)), path) for path in self.path.rglob("*") if path.is_file()]

    def same_as(self, other: Path) -> bool:
        """Whether another folder has the same files with the same content, and no more."""
        there = {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}
        return there == {name for name, _ in self.files} and all(
            path.read_bytes() == (other / name).read_bytes() for name, path in self.files
        )
