"""Stores on each kind of file system that can run here, and folders to fill them with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import Folder
from s3 import S3, Door, s3_of_its_own, session_s3, unique

from prefect_jobs import ObjectStore


@pytest.fixture(scope="session")
def s3() -> S3:
    """The S3 server of the session."""
    return session_s3()


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3]:
    """An S3 server that a test may stop."""
    with s3_of_its_own(tmp_path / "server") as server:
        yield server


@pytest.fixture
def door(s3: S3) -> Iterator[Door]:
    """A door before the session's S3 server."""
    with Door(s3).opened() as door:
        yield door


@pytest.fixture(params=["file", "memory", "s3"])
def block(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    match request.param:
        case "file":
            return ObjectStore(url=f"file://{tmp_path}/store")
        case "memory":
            return ObjectStore(url=f"memory://{unique()}")
        case _:
            server: S3 = request.getfixturevalue("s3")
            return server.block(unique())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder."""
    return Folder(tmp_path / "folder")
