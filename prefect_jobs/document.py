"""The document ``jobs.yaml``: text to jobs, jobs to text, and where in the text something is wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from prefect_jobs.errors import DocumentError, at_line
from prefect_jobs.job import NAME, Job
from prefect_jobs.model import Model
from prefect_jobs.wording import Location, complaint, location, unknown_key

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

M = TypeVar("M", bound=Model)
# What a job takes from the document around it, and not from its own keys.
_FROM_OUTSIDE = {"name", "project"}


class Document(Model):
    """A document that was read."""

    project: str | None = None
    """Whose jobs these are; known also where the document has no job left."""
    jobs: list[Job] = []
    places: dict[str, str] = {}
    """Where each job stands: file and line."""


class _Text(Model):
    """What a document holds. The jobs are kept by name; each is checked for itself."""

    project: str | None = Field(default=None, pattern=NAME)
    """Whose jobs these are: ``apply --prune`` removes only jobs of this project."""
    jobs: dict[str, dict[str, Any]] = {}
    """The jobs by name."""


def read(path: str | Path) -> list[Job]:
    """Read the jobs of a file.

    Raises:
        DocumentError: as `read_document`.
    """
    return read_document(path).jobs


def read_document(path: str | Path) -> Document:
    """Read a file: its jobs, and the project that it names.

    Raises:
        DocumentError: the file cannot be read, is not YAML, or says something that a job does not take. Every
            problem is named with file, line, key, what was found and what is expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError([f"{path}: cannot be read: {error.strerror}; name another file"]) from error
    except UnicodeDecodeError as error:
        raise DocumentError([f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}"]) from error
    return _document(text, path)


def loads(text: str, *, file: str | Path = "jobs.yaml") -> list[Job]:
    """Read the jobs of a document's text; ``file`` stands in error messages.

    Raises:
        DocumentError: as `read_document`.
    """
    return _document(text, file).jobs


def _document(text: str, file: str | Path) -> Document:
    source = _Source(text, file)
    found = source.parse(_Text, source.data, ())
    source.raise_problems()
    assert found is not None
    jobs = [source.job(name, body, found.project) for name, body in found.jobs.items()]
    source.raise_problems()
    return Document(
        project=found.project,
        jobs=[job for job in jobs if job is not None],
        places={name: source.place("jobs", name) for name in found.jobs},
    )


def dumps(jobs: Iterable[Job]) -> str:
    """Write jobs as a document: what was set, as it was written."""
    jobs = list(jobs)
    document: dict[str, Any] = {"jobs": {job.name: job.document() for job in jobs}}
    if jobs and jobs[0].project is not None:
        document = {"project": jobs[0].project, **document}
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def _yaml() -> Any:
    """YAML 1.2 as plain values, written as people write it. Imported here: the schema needs no YAML."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 120
    return yaml


def schema() -> dict[str, Any]:
    """The JSON Schema of the document, for editors and other tools."""
    job = Job.model_json_schema(ref_template="#/$defs/{model}")
    definitions = job.pop("$defs", {})
    for hidden in _FROM_OUTSIDE:
        job["properties"].pop(hidden)
    job["required"] = [key for key in job.get("required", []) if key != "name"]
    job["anyOf"] = [{"required": ["image"]}, {"required": ["command"]}]
    document = _Text.model_json_schema()
    document["properties"]["jobs"]["additionalProperties"] = {"$ref": "#/$defs/Job"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "prefect-jobs",
        **{key: value for key, value in document.items() if key != "title"},
        "$defs": {"Job": job, **definitions},
    }


class _Source:
    """A document's text with its lines, and the problems found in it so far."""

    def __init__(self, text: str, file: str | Path) -> None:
        self.file = file
        self.problems: list[tuple[int, str]] = []
        from ruamel.yaml.error import MarkedYAMLError

        self.data: Any
        try:
            self.root: Node | None = _yaml().compose(text)
            self.data = _yaml().load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise DocumentError([f"{at_line(file, line)}: is not YAML: {error.problem or error.context}"]) from None
        except Exception as error:
            raise DocumentError([f"{file}: is not YAML: {error}"]) from None
        if self.data is None:
            raise DocumentError([f"{at_line(file, 1)}: is empty; expected a mapping with the key 'jobs'"])

    def parse(self, model: type[M], value: Any, where: Location) -> M | None:
        """Make a model of a part of the document, or note what is wrong with it."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                self._note((*where, *location(found)), complaint(found, model))
            return None

    def job(self, name: str, body: Mapping[str, Any], project: str | None) -> Job | None:
        """Make a job of what stands below its name, or note what is wrong with it."""
        where = ("jobs", name)
        for key in sorted(body.keys() & _FROM_OUTSIDE):
            self._note((*where, key), unknown_key(Job))
        if not re.fullmatch(NAME, name):
            self._note(where, f"expected a name of letters, digits and . _ - that stand inside it, found {name!r}")
            return None
        return self.parse(Job, {**body, "name": name, "project": project}, where)

    def place(self, *where: str | int) -> str:
        """File and line of a part of the document."""
        return at_line(self.file, self._line(where))

    def raise_problems(self) -> None:
        """Refuse the document if anything in it is wrong."""
        if self.problems:
            raise DocumentError([problem for _, problem in sorted(self.problems)])

    def _note(self, where: Location, words: str) -> None:
        line = self._line(where)
        key = ".".join(map(str, where)) or "the document"
        self.problems.append((line, f"{at_line(self.file, line)}: {key}: {words}"))

    def _line(self, where: Location) -> int:
        """The line of the deepest part of a location that the text has, from 1."""
        node, line = self.root, 1
        for part in where:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def _child(node: Node | None, part: str | int) -> tuple[int, Node] | None:
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    return None
