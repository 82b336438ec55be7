"""The process block: a command on this machine, in a folder of its own. The embedded default."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from prefect.settings import get_current_settings
from pydantic import Field

from prefect_jobs.blocks.engine import Engine
from prefect_jobs.blocks.infrastructure import Infrastructure
from prefect_jobs.spec import ContainerSpec

# What a program needs to find its way on a machine; everything else of the supervisor's environment stays away,
# above all Prefect's own credentials.
DEFAULT_ENVIRONMENT = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
]


class Process(Infrastructure):
    """Runs a job's command as a process of the machine that the flow runs on. The image is not used.

    Every attempt has a folder of its own, which is its working directory and is removed at the end. CPU, memory and
    GPU are not limited. When the command ends, whatever it left running is killed.

    Example:
        Load a saved block:
        ```python
        from prefect_jobs.blocks.process import Process

        process = Process.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Process Infrastructure"
    _block_type_slug = "process"
    _description = "Run container jobs as processes of this machine."
    _documentation_url = "https://docs.prefect.io/v3/concepts/blocks"  # type: ignore[assignment]
    _logo_url = "https://cdn.sanity.io/images/3ugk85nk/production/356e6766a91baf20e1d08bbe16e8b5aaef4d8643-48x48.png"  # type: ignore[assignment]

    takes_images: ClassVar[bool] = False

    home: Path | None = Field(
        default=None,
        title="Home folder",
        description="Where folders of runs and named volumes are made; default: the folder 'jobs' in Prefect's home.",
        examples=["/var/lib/prefect-jobs"],
    )
    workspace: Path | None = Field(
        default=None,
        title="Workspace",
        description=(
            "A folder that is copied into the working directory of every attempt; it stands for what an image has in "
            "its working directory."
        ),
        examples=["/srv/jobs/iris"],
    )
    search_path: list[str] = Field(
        default=[],
        title="Search path",
        description="Folders searched for programs before those in PATH, such as a virtual environment's bin.",
        examples=[["/srv/venvs/iris/bin"]],
    )
    pass_environment: list[str] = Field(
        default=DEFAULT_ENVIRONMENT,
        title="Environment to pass on",
        description="Environment variables of the machine that a job sees; all others are kept from it.",
    )

    @property
    def folder(self) -> Path:
        """The home folder, with the default filled in."""
        return self.home if self.home is not None else get_current_settings().home / "jobs"

    def base_environment(self) -> dict[str, str]:
        """What a process finds in its environment before the job's own, as an image's environment would be."""
        env = {name: os.environ[name] for name in self.pass_environment if name in os.environ}
        if self.search_path:
            env["PATH"] = os.pathsep.join([*self.search_path, env.get("PATH", os.defpath)])
        return env

    def problems_with(self, spec: ContainerSpec) -> list[str]:
        """What a process cannot have, beside what the block does not allow."""
        problems = super().problems_with(spec)
        if spec.command is None:
            problems.append("it has no command, and a process has no image whose entrypoint could be used")
        problems += [
            f"it mounts the host folder {mount.source!r} at {mount.target!r}; a process sees it where it is"
            for mount in spec.mounts
            if mount.is_host_folder and mount.source.rstrip("/") != mount.target.rstrip("/")
        ]
        if spec.security.user is not None:
            problems.append("it asks for another user (security.user), which a process cannot have")
        return problems

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """The processes of this machine."""
        from prefect_jobs.blocks.process_engine import ProcessEngine

        yield ProcessEngine(self)
