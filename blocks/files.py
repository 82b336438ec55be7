"""Files in and out of an attempt: what it is to find in its folders, and what it left there that may be taken."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prefect_jobs import manifest
from prefect_jobs.errors import InfrastructureError

Folder = Literal["input", "output", "checkpoint"]
"""One of the folders of the container contract (see `prefect_jobs.spec.Places`)."""

Staged = Mapping[Folder, Path]
"""Folders of this machine whose content an attempt is to find in its own when it starts."""
NOTHING_STAGED: Staged = {}

# Object stores take keys of 1024 bytes, and a key has more than a file's name.
_LONGEST_NAME = 768
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Left:
    """What an attempt left in one of its folders."""

    files: dict[str, Path] = field(default_factory=dict)
    """Name below the folder, with forward slashes: the file of this machine that holds it now."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name: why it was not taken."""


def problem_with_name(name: str) -> str | None:
    """Why a file of this name is not taken; None where nothing speaks against it."""
    if problem := manifest.problem_with(name):
        return f"its name {problem}"
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        return "its name has control characters"
    if len(name.encode()) > _LONGEST_NAME:
        return f"its name is longer than {_LONGEST_NAME} bytes"
    return None


def shown(name: str) -> str:
    """A name as it can be written down, whatever bytes it has."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def target_of(name: str, links: Mapping[str, str], root: str) -> str | None:
    """The name below a folder that a link leads to, through other links; None where it leaves the folder.

    It is empty where the links lead round. ``links`` are the folder's links by name, ``root`` is the folder's own path
    as the links see it.
    """
    for _ in range(_MOST_LINKS):
        for end in _heads(name):
            if (target := links.get(end)) is None:
                continue
            path = posixpath.normpath(posixpath.join(root, posixpath.dirname(end), target))
            if path == root:
                return ""
            if not path.startswith(f"{root}/"):
                return None
            name = path[len(root) + 1 :] + name[len(end) :]
            break
        else:
            return name
    return ""


def _heads(name: str) -> Iterator[str]:
    """``a``, ``a/b`` and ``a/b/c`` of ``a/b/c``."""
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def left_in(folder: Path, only: str | None = None) -> Left:
    """What is in a folder of this machine; ``only`` one file of it, by name.

    A link to a file below the folder stands for the file; nothing outside is ever looked at.

    Raises:
        InfrastructureError: all of it is asked for, and what the folder was in is gone as well.
    """
    left, links = Left(), dict[str, str]()
    if only is None and not folder.parent.exists():
        raise InfrastructureError(
            f"what was left in {str(folder)!r} cannot be had: the attempt's folder is gone, so somebody removed it "
            "after the attempt had ended; start the run again, and let nothing but prefect-jobs remove these folders"
        )
    if folder.is_symlink() or not folder.is_dir():
        return left
    for path, name in _walked(folder, left.skipped) if only is None else [(folder / only, only)]:
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            left.skipped[shown(name)] = f"it cannot be read: {error.strerror}"
            continue
        if problem := problem_with_name(name):
            left.skipped[shown(name)] = problem
        elif stat.S_ISLNK(mode):
            links[name] = os.readlink(path)
        elif not stat.S_ISREG(mode):
            left.skipped[name] = "it is neither a file nor a folder"
        elif not os.access(path, os.R_OK):
            left.skipped[name] = "it cannot be read"
        else:
            left.files[name] = path
    resolve(left, links, str(folder))
    return left


def resolve(left: Left, links: Mapping[str, str], root: str) -> None:
    """Take each link that leads to a file that is taken; the others are skipped."""
    files = dict(left.files)
    folders = {head for name in files for head in _heads(posixpath.dirname(name))}
    for name in links:
        target = target_of(name, links, root)
        if target is not None and target in files:
            left.files[name] = files[target]
        else:
            left.skipped[name] = f"it is a link {_leads(target, folders)}"


def _leads(target: str | None, folders: Container[str]) -> str:
    """Where a link leads that is not taken."""
    if not target:
        return "out of the folder" if target is None else "that leads back to itself"
    return "to a folder" if target in folders else "to no file"


def _walked(folder: Path, skipped: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Everything below a folder but folders, with its name; a folder that cannot be listed is skipped."""

    def unlisted(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            name = Path(error.filename).relative_to(folder).as_posix()
            skipped[shown(name)] = f"it is a folder that cannot be listed: {error.strerror}"

    for parent, folders, files in os.walk(folder, onerror=unlisted):
        inner = Path(parent)
        links = [name for name in folders if os.path.islink(inner / name)]
        for name in sorted([*files, *links]):
            path = inner / name
            yield path, path.relative_to(folder).as_posix()
