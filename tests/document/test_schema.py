"""The JSON Schema of the document: it takes what the reader takes, and no key that the reader refuses."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from prefect_jobs.document import loads, schema
from prefect_jobs.errors import DocumentError

Path = tuple[str | int, ...]

FULL: dict[str, Any] = {
    "project": "iris",
    "jobs": {
        "a": {
            "image": "x",
            "parameters": {"n": {"type": "integer", "default": 1}},
            "retries": {"failures": 1},
            "timeout": {"attempt": 60},
            "shape": {"cpu": 1},
            "concurrency": {"limit": 1},
            "security": {"privileged": True},
            "secrets": {"KEY": {"block": "tls-key", "file": "/run/secrets/tls.key"}},
            "logging": {"prefect": True},
            "schedules": [{"interval": "1h", "parameters": {"n": 2}}],
        }
    },
}
A: Path = ("jobs", "a")
CLOSED: list[Path] = [
    (),
    A,
    (*A, "parameters", "n"),
    (*A, "retries"),
    (*A, "timeout"),
    (*A, "shape"),
    (*A, "concurrency"),
    (*A, "security"),
    (*A, "secrets", "KEY"),
    (*A, "logging"),
    (*A, "schedules", 0),
]
WRONG: list[tuple[Path, Any]] = [
    (("project",), "a/b"),
    (("jobs",), ["a"]),
    (A, {}),
    ((*A, "image"), 3),
    ((*A, "command"), "echo hi"),
    ((*A, "command"), []),
    ((*A, "args"), [None]),
    ((*A, "env"), {"A": True}),
    ((*A, "retries"), -1),
    ((*A, "retries", "never_on"), ["two"]),
    ((*A, "timeout", "attempt"), -1),
    ((*A, "timeout"), True),
    ((*A, "keep"), -1),
    ((*A, "shape", "gpu"), 0.5),
    ((*A, "shape", "cpu"), 0),
    ((*A, "shape", "memory"), 1000),
    ((*A, "retries", "delay"), [1] * 51),
    ((*A, "retries", "backoff"), 0.5),
    ((*A, "retries", "jitter"), 1.5),
    ((*A, "secrets", "KEY", "file"), "tls.key"),
    ((*A, "secrets", "KEY", "block"), None),
    ((*A, "retries", "max_delay"), -1),
    ((*A, "concurrency", "limit"), 0),
    ((*A, "concurrency"), {}),
    ((*A, "concurrency", "beyond"), "wait"),
    ((*A, "pull_policy"), "Often"),
    ((*A, "logging", "level"), "LOUD"),
    ((*A, "parameters", "n", "type"), "int"),
    ((*A, "parameters", "n", "enum"), []),
    ((*A, "schedules"), {}),
    ((*A, "tags"), "iris"),
]


def _with(path: Path, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(FULL)
    *above, last = path
    place: Any = document
    for part in above:
        place = place[part]
    place[last] = value
    return document


def _reader_takes(document: Any) -> bool:
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(document, text)
    try:
        loads(text.getvalue())
    except DocumentError:
        return False
    return True


def _schema_takes(document: Any) -> bool:
    return Draft202012Validator(schema()).is_valid(document)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_what_the_reader_takes_the_schema_takes(document: dict[str, Any]) -> None:
    Draft202012Validator(schema()).validate(document)


def test_a_full_document_is_taken_by_both() -> None:
    Draft202012Validator(schema()).validate(FULL)
    assert _reader_takes(FULL)


@pytest.mark.parametrize("path", CLOSED, ids=lambda path: ".".join(map(str, path)) or "top")
@pytest.mark.parametrize("key", ["unknown", "name", "x-anything"])
def test_an_unknown_key_passes_neither(path: Path, key: str) -> None:
    document = _with((*path, key), "b")
    assert not _reader_takes(document)
    assert not _schema_takes(document)


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda part: str(part))
def test_a_wrong_value_passes_neither(path: Path, value: Any) -> None:
    document = _with(path, value)
    assert not _reader_takes(document)
    assert not _schema_takes(document)


def test_every_key_of_a_job_has_a_description_for_editors() -> None:
    job = schema()["$defs"]["Job"]
    assert [key for key, value in job["properties"].items() if not value.get("description")] == []
