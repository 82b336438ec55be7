"""What a deployment carries: a template, the image it was pinned to, and the version that names both."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from prefect_jobs.errors import VersionError
from prefect_jobs.job import Job
from prefect_jobs.model import Model
from prefect_jobs.names import PIPELINE
from prefect_jobs.pipeline import Pipeline
from prefect_jobs.wording import complaint, location


class Deployed(Model):
    """A template as it was deployed: nothing in it changes from then on."""

    kind: ClassVar[str]
    """The name of its flow, and of the hidden parameter in which it travels."""
    template: Job | Pipeline

    @property
    def version(self) -> str:
        """The template's hash, shortened to 16 hexadecimal digits."""
        text = json.dumps(_canonical(self.document()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def document(self) -> dict[str, Any]:
        """The mapping that travels as the hidden parameter."""
        document: dict[str, Any] = {"name": self.template.name, **self.template.document()}
        if self.template.project is not None:
            document["project"] = self.template.project
        return {"template": document}

    @classmethod
    def parse(cls, document: Any, version: str | None) -> Self:
        """Read what `document` wrote, and hold it against the version that the deployment gave the run.

        Raises:
            VersionError: the template is not the one that the version names.
        """
        try:
            deployed = cls.model_validate(document, by_alias=True, by_name=False)
        except ValidationError as error:
            problems = "; ".join(
                ": ".join((".".join(map(str, location(found))) or cls.kind, complaint(found, cls)))
                for found in error.errors(include_url=False)
            )
            raise VersionError(
                f"the parameter {cls.kind!r} does not hold a template that this release of prefect-jobs reads: "
                f"{problems}; apply the {cls.kind} again, and leave {cls.kind!r} out of the run's parameters"
            ) from None
        if deployed.version != version:
            raise VersionError(
                f"the run's template of {cls.kind} {deployed.template.name!r} is version {deployed.version}, but its "
                f"deployment gave it version {version}: a run cannot replace the template. Leave {cls.kind!r} out of "
                "the run's parameters, or apply the changed template"
            )
        return deployed


class DeployedJob(Deployed):
    """A job as it was deployed, and the image that it was pinned to."""

    kind = "job"
    template: Job
    image: str | None = None
    """The image by digest; None where the infrastructure takes none."""

    @property
    def version(self) -> str:
        """``<template hash>`` or ``<template hash>-<image digest>``, shortened to 16 and 12 hexadecimal digits.

        The hash covers template and image, so that a changed image is a new version too.
        """
        digest = super().version
        return digest if self.image is None else f"{digest}-{self.image.rpartition(':')[2][:12]}"

    def document(self) -> dict[str, Any]:
        """The mapping that travels as the hidden parameter ``job``."""
        return {**super().document(), "image": self.image}


class DeployedPipeline(Deployed):
    """A pipeline as it was deployed."""

    kind = PIPELINE
    template: Pipeline

    def document(self) -> dict[str, Any]:
        """The mapping that travels as the hidden parameter ``pipeline``.

        Databases forget the order of keys, so that it names the steps, and the parameters of each matrix, in theirs.
        """
        steps = self.template.steps.items()
        order = [[name, list(step.matrix.axes) if step.matrix else []] for name, step in steps]
        return {**super().document(), "order": order}

    @classmethod
    def parse(cls, document: Any, version: str | None) -> Self:
        """As every deployed template is read; steps and matrices have the order in which they were written."""
        with suppress(LookupError, TypeError, ValueError, AttributeError):  # What it lacks is named below.
            template, order = dict(document["template"]), document["order"]
            template["steps"] = _ordered(template["steps"], [name for name, _ in order])
            for name, axes in order:
                if axes:
                    step = template["steps"][name]
                    template["steps"][name] = {**step, "matrix": _ordered(step["matrix"], axes)}
            document = {"template": template}
        return super().parse(document, version)


def _ordered(mapping: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: mapping[name] for name in [*names, *(name for name in mapping if name not in names)]}


def _canonical(value: Any) -> Any:
    """A JSON value in the one form that survives any database: whole floats are integers."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
