"""Every error a person can meet, split by what that person should do.

JobError
├── TemplateError            mend the job template
│   ├── DocumentError        … at this file, line and key
│   └── NotAllowedError      … or open it on the infrastructure block
├── OverrideError            start the run with other values
├── StepError                mend what a step of a pipeline takes from the steps before it
├── VersionError             start the run from its deployment, without touching the template
├── NotFoundError            name something that is there
├── MissingExtraError        install the named extra
├── StoreError               mend the store's block, its rights or the disk
│   ├── NoSuchObject         … or name an object that is there
│   └── StoreUnavailable     wait: the store did not answer for as long as its patience lasts
└── InfrastructureError      wait, or mend the engine
    ├── EngineUnavailable    the engine did not answer; nothing is known about the container
    └── ImageUnavailable     the image cannot be had; trying again does not help
"""

from __future__ import annotations

from pathlib import Path


class JobError(Exception):
    """Base of all errors of prefect-jobs."""

    key: str | None = None
    """The key of a document that it is about, such as ``jobs.train``, where that is known."""


class TemplateError(JobError, ValueError):
    """The job template is wrong; nothing was started and nothing was changed."""


class DocumentError(TemplateError):
    """One or more places of a document are wrong.

    ``problems`` holds a line for each: file, line, key, what was found, what is expected.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class NotAllowedError(TemplateError):
    """A job asks for more than its infrastructure block allows."""


class OverrideError(JobError, ValueError):
    """A run asks for a value that its job does not take."""


class StepError(JobError):
    """A step of a pipeline cannot begin with what the steps before it have left."""


class VersionError(JobError):
    """The template that came with a run is not the one that its deployment version names."""


class NotFoundError(JobError, LookupError):
    """Prefect's API knows no such job, run or block."""


class MissingExtraError(JobError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra!r}, which is not installed: pip install 'prefect-jobs[{extra}]'"
        )


class StoreError(JobError):
    """A store, or a disk that files go to and come from, refused; trying again does not help."""


class NoSuchObject(StoreError, LookupError):
    """Nothing is in the store by that name."""


class StoreUnavailable(StoreError):
    """The store did not answer, or was too busy, until its patience ran out."""


class InfrastructureError(JobError):
    """The infrastructure failed; the job itself may be fine."""


class EngineUnavailable(InfrastructureError):
    """The engine did not answer. Never an outcome: the container may well be running."""


class ImageUnavailable(InfrastructureError):
    """The image is missing, refused or misnamed; the engine's own words are in the message."""


def at_line(file: str | Path, line: int) -> str:
    """Where in a file, in the form that editors and terminals turn into a link."""
    return f"{file}:{line}"
