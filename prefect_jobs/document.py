"""The document ``jobs.yaml``: text to jobs and pipelines and back, and where in the text something is wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from prefect_jobs.errors import DocumentError, at_line
from prefect_jobs.job import Job
from prefect_jobs.model import Model, Problem
from prefect_jobs.names import NAME
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.wiring import wiring_problems
from prefect_jobs.wording import Location, complaint, location, unknown_key

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

M = TypeVar("M", bound=Model)
T = TypeVar("T", Job, Pipeline)
# What a job or a pipeline takes from the document around it, and not from its own keys.
_FROM_OUTSIDE = {"name", "project"}


class Document(Model):
    """A document that was read."""

    project: str | None = None
    """Whose jobs these are; known also where the document has no job left."""
    jobs: list[Job] = []
    pipelines: list[Pipeline] = []
    places: dict[str, str] = {}
    """Where each job and each pipeline stands: ``jobs.NAME`` or ``pipelines.NAME`` to file and line."""


class _Text(Model):
    """What a document holds. Jobs and pipelines are kept by name; each is checked for itself."""

    project: str | None = Field(default=None, pattern=NAME)
    """Whose jobs these are: ``apply --prune`` removes only jobs of this project."""
    jobs: dict[str, dict[str, Any]] = {}
    """The jobs by name."""
    pipelines: dict[str, dict[str, Any]] = {}
    """The pipelines by name: graphs of steps that run the jobs."""


def read(path: str | Path) -> list[Job]:
    """Read the jobs of a file.

    Raises:
        DocumentError: as `read_document`.
    """
    return read_document(path).jobs


def read_document(path: str | Path) -> Document:
    """Read a file: its jobs and pipelines, and the project that it names.

    Raises:
        DocumentError: the file cannot be read, is not YAML, or says what no job or pipeline takes. Every problem
            is named with file, line, key, what was found and what is expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError([f"{path}: cannot be read: {error.strerror}; name another file"]) from error
    except UnicodeDecodeError as error:
        raise DocumentError([f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}"]) from error
    return load_document(text, file=path)


def loads(text: str, *, file: str | Path = "jobs.yaml") -> list[Job]:
    """Read the jobs of a document's text; ``file`` stands in error messages.

    Raises:
        DocumentError: as `read_document`.
    """
    return load_document(text, file=file).jobs


def load_document(text: str, *, file: str | Path = "jobs.yaml") -> Document:
    """Read a document's text: its jobs and pipelines, and the project that it names.

    Raises:
        DocumentError: as `read_document`.
    """
    source = _Source(text, file)
    found = source.parse(_Text, source.data, ())
    source.raise_problems()
    assert found is not None
    jobs = [source.part(Job, "jobs", name, body, found.project) for name, body in found.jobs.items()]
    pipelines = [
        source.part(Pipeline, "pipelines", name, body, found.project) for name, body in found.pipelines.items()
    ]
    source.raise_problems()
    by_name = {job.name: job for job in jobs if job is not None}
    for pipeline in pipelines:
        if pipeline is not None:
            source.note(("pipelines", pipeline.name), wiring_problems(pipeline, by_name))
    source.raise_problems()
    keys = [("jobs", name) for name in found.jobs] + [("pipelines", name) for name in found.pipelines]
    return Document(
        project=found.project,
        jobs=list(by_name.values()),
        pipelines=[pipeline for pipeline in pipelines if pipeline is not None],
        places={f"{key}.{name}": source.place(key, name) for key, name in keys},
    )


def dumps(jobs: Iterable[Job], pipelines: Iterable[Pipeline] = ()) -> str:
    """Write jobs and pipelines as a document: what was set, as it was written."""
    jobs, pipelines = list(jobs), list(pipelines)
    document: dict[str, Any] = {}
    if project := next(iter([job.project for job in jobs] + [pipeline.project for pipeline in pipelines]), None):
        document["project"] = project
    if jobs or not pipelines:
        document["jobs"] = {job.name: job.document() for job in jobs}
    if pipelines:
        document["pipelines"] = {pipeline.name: pipeline.document() for pipeline in pipelines}
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
    definitions: dict[str, Any] = {}
    job, pipeline = _part_schema(Job, definitions), _part_schema(Pipeline, definitions)
    job["anyOf"] = [{"required": ["image"]}, {"required": ["command"]}]
    document = _Text.model_json_schema()
    document["properties"]["jobs"]["additionalProperties"] = {"$ref": "#/$defs/Job"}
    document["properties"]["pipelines"]["additionalProperties"] = {"$ref": "#/$defs/Pipeline"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "prefect-jobs",
        **{key: value for key, value in document.items() if key != "title"},
        "$defs": {"Job": job, "Pipeline": pipeline, **definitions},
    }


def _part_schema(model: type[Model], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of what stands below a name; what it refers to is added to the definitions."""
    part = model.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= part.pop("$defs", {})
    for hidden in _FROM_OUTSIDE:
        part["properties"].pop(hidden)
    part["required"] = [key for key in part.get("required", []) if key != "name"]
    return part


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
            if twice := re.match(r"found (duplicate key .+?) with value", error.problem or ""):
                raise DocumentError([f"{at_line(file, line)}: {twice[1]}; keep one"]) from None
            raise DocumentError([f"{at_line(file, line)}: is not YAML: {error.problem or error.context}"]) from None
        except Exception as error:
            raise DocumentError([f"{file}: is not YAML: {error}"]) from None
        if self.data is None:
            raise DocumentError([f"{at_line(file, 1)}: is empty; expected a mapping with the key 'jobs'"])

    def parse(self, model: type[M], value: Any, where: Location) -> M | None:
        """Make a model of a part of the document, or note what is wrong with it."""
        try:
            return model.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                self._note((*where, *location(found)), complaint(found, model))
            return None

    def part(self, model: type[T], key: str, name: str, body: Mapping[str, Any], project: str | None) -> T | None:
        """Make a job or a pipeline of what stands below its name, or note what is wrong with it."""
        where: Location = (key, name)
        for outside in sorted(body.keys() & _FROM_OUTSIDE):
            self._note((*where, outside), unknown_key(model))
        if not re.fullmatch(NAME, name):
            self._note(where, f"expected a name of letters, digits and . _ - that stand inside it, found {name!r}")
            return None
        return self.parse(model, {**body, "name": name, "project": project}, where)

    def note(self, where: Location, problems: Iterable[Problem]) -> None:
        """Note problems that lie below a part of the document."""
        for below, words, found in problems:
            shown = "" if isinstance(found, dict | list) or repr(found) in words else f", found {found!r}"
            self._note((*where, *below), f"{words}{shown}")

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
