"""The base of all infrastructure blocks: named shapes, and how much a job may ask for."""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field

from prefect_jobs.blocks.engine import Engine
from prefect_jobs.errors import NotAllowedError
from prefect_jobs.quantities import Cpu, Memory
from prefect_jobs.spec import ContainerSpec, Shape

DEFAULT_SHAPES = {
    "small": Shape(cpu=Cpu(1), memory=Memory("2Gi")),
    "medium": Shape(cpu=Cpu(2), memory=Memory("8Gi")),
    "large": Shape(cpu=Cpu(8), memory=Memory("32Gi")),
}


class Infrastructure(Block):
    """Where containers run. Its owner decides here what a job may ask for."""

    takes_images: ClassVar[bool] = True
    """Whether a job needs an image there."""

    shapes: dict[str, Shape] = Field(
        default=DEFAULT_SHAPES,
        title="Shapes",
        description="Compute shapes by name: cpu, memory, gpu and shared_memory.",
        # As a person would write it: what is not named is not limited.
        json_schema_extra={"default": {n: s.model_dump(exclude_unset=True) for n, s in DEFAULT_SHAPES.items()}},
        examples=[{"small": {"cpu": 1, "memory": "2Gi"}}],
    )
    allow_host_folders: list[str] = Field(
        default=[],
        title="Allowed host folders",
        description="Folders of the host that a job may mount: each as it is listed, not what is below it.",
        examples=[["/srv/data"]],
    )
    allow_privileged: bool = Field(
        default=False,
        title="Allow privileged containers",
        description="Whether a job may run with all capabilities and devices of the host.",
    )
    allow_host_network: bool = Field(
        default=False,
        title="Allow the host's network",
        description="Whether a job may use the network of the host.",
    )
    allow_capabilities: list[str] = Field(
        default=[],
        title="Allowed capabilities",
        description="Linux capabilities that a job may add.",
        examples=[["NET_ADMIN"]],
    )
    allow_devices: list[str] = Field(
        default=[],
        title="Allowed devices",
        description="Devices of the host that a job may use.",
        examples=[["/dev/fuse"]],
    )

    @abstractmethod
    def engine(self) -> AbstractAsyncContextManager[Engine]:
        """Connect to the engine; everything in one event loop shares one connection."""

    @property
    def is_local(self) -> bool:
        """Whether what it starts is seen from this machine alone."""
        return True

    @property
    def label(self) -> str:
        """The block as a job names it: ``docker/local``, or ``docker`` where it is not saved."""
        name = self._block_document_name
        return f"{self.get_block_type_slug()}/{name}" if name else str(self.get_block_type_slug())

    def check(self, spec: ContainerSpec, job: str) -> None:
        """Refuse a container that asks for more than this block allows.

        Raises:
            NotAllowedError: the message names the job, the block, and all that is not allowed.
        """
        if problems := self.problems_with(spec):
            raise NotAllowedError(f"job {job!r} is not allowed on {self.label}: " + "; ".join(problems))

    def problems_with(self, spec: ContainerSpec) -> list[str]:
        """What a container asks for and this block does not allow, with the field that would open it."""
        security, problems = spec.security, []
        # Not what is below a folder: a job that writes there could leave a link to anywhere for the next one to mount.
        allowed = {PurePosixPath(folder) for folder in self.allow_host_folders}
        if self.takes_images and spec.image is None:
            problems.append("it has no image, which this infrastructure needs")
        problems += [
            f"it mounts the host folder {mount.source!r}, and the block's allow_host_folders has "
            f"{', '.join(self.allow_host_folders) or 'none'}"
            for mount in spec.mounts
            if mount.is_host_folder and PurePosixPath(mount.source) not in allowed
        ]
        problems += [
            f"its input {name!r} is {uri!r}, a file of the machine that the run is looked after on, and the block's "
            f"allow_host_folders has {', '.join(self.allow_host_folders) or 'none'}"
            for name, uri in spec.inputs.items()
            if self.takes_images and uri.startswith("file://") and not _is_below(uri.removeprefix("file://"), allowed)
        ]
        if security.privileged and not self.allow_privileged:
            problems.append("it asks for privileges (security.privileged), and the block's allow_privileged is off")
        if security.host_network and not self.allow_host_network:
            problems.append("it asks for the host's network (security.host_network), and allow_host_network is off")
        problems += [
            f"it asks for the {what} {name!r}, and the block's {field} does not list it"
            for what, field, asked in (
                ("capability", "allow_capabilities", security.capabilities),
                ("device", "allow_devices", security.devices),
            )
            for name in asked
            if name not in getattr(self, field)
        ]
        return problems


def _is_below(path: str, folders: set[PurePosixPath]) -> bool:
    """Whether a path of this machine lies in one of the folders, wherever links lead."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)
