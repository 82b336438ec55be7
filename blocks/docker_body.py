"""A container as a Docker engine takes it: the body of its creation, and the folders put into it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_jobs.spec import SECRETS_FOLDER, ContainerSpec, Identity, Places

if TYPE_CHECKING:
    from prefect_jobs.blocks.docker import Docker

# The label that says for how many seconds a container is kept if it fails.
KEEP = "prefect-jobs/keep-seconds"
_PLACES = Places()
# The engine takes no word for "unlimited" (json-file log driver, options): a petabyte will do.
_KEEP_EVERY_LINE = {"max-size": "1000t", "max-file": "1", "compress": "false", "mode": "blocking"}


def checkpoint_volume(run_id: UUID) -> str:
    """The volume that a run's attempts share."""
    return f"prefect-jobs-{run_id}-checkpoint"


def create_body(block: Docker, spec: ContainerSpec, identity: Identity, secrets: Mapping[str, str]) -> dict[str, Any]:
    """A container as the engine's API takes it (Engine API, "Create a container")."""
    env = {**spec.env, **spec.secret_environment(secrets), **identity.environment, **_PLACES.environment}
    shape, security = spec.shape, spec.security
    mounts: list[dict[str, Any]] = [
        {
            "Type": "bind" if mount.is_host_folder else "volume",
            "Source": mount.source,
            "Target": mount.target,
            "ReadOnly": mount.read_only,
        }
        for mount in spec.mounts
    ]
    mounts.append(
        {
            "Type": "volume",
            "Source": checkpoint_volume(identity.run_id),
            "Target": _PLACES.checkpoint,
            "VolumeOptions": {"Labels": identity.labels},
        }
    )
    if spec.secret_files:
        mounts.append(secrets_mount(identity))
    host: dict[str, Any] = {
        "Mounts": mounts,
        "Privileged": security.privileged,
        "CapAdd": security.capabilities,
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in security.devices
        ],
        # The engine's default may be a driver whose logs cannot be read back, or rotate lines away, or drop them when
        # it is busy; it fills in what is not set here.
        "LogConfig": {"Type": "json-file", "Config": _KEEP_EVERY_LINE},
    }
    if not security.privileged:
        host["SecurityOpt"] = ["no-new-privileges"]
    if network := "host" if security.host_network else block.network:
        host["NetworkMode"] = network
    if shape.cpu is not None:
        host["NanoCpus"] = round(shape.cpu.cores * 1e9)
    if shape.memory is not None:
        host["Memory"] = host["MemorySwap"] = shape.memory.bytes
    if shape.shared_memory is not None:
        host["ShmSize"] = shape.shared_memory.bytes
    if shape.gpu:
        host["DeviceRequests"] = [{"Driver": "nvidia", "Count": shape.gpu, "Capabilities": [["gpu"]]}]
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": identity.labels | ({} if spec.keep_seconds is None else {KEEP: str(spec.keep_seconds)}),
        "StopSignal": "SIGTERM",
        "HostConfig": host,
    }
    # As in Kubernetes: a command replaces the entrypoint, and with it the image's own arguments.
    if spec.command is not None:
        body |= {"Entrypoint": spec.command, "Cmd": spec.args or []}
    elif spec.args is not None:
        body["Cmd"] = spec.args
    if security.user is not None:
        body["User"] = security.user
    return body


def secrets_mount(identity: Identity) -> dict[str, Any]:
    """The folder of an attempt's secrets: memory, which no disk of the engine has and which is gone with the container.

    A volume and no plain tmpfs: its content can be put in from outside (see `prefect_jobs.blocks.docker_secrets`).
    """
    return {
        "Type": "volume",
        "Source": f"{identity.container_name}-secrets",
        "Target": SECRETS_FOLDER,
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": identity.labels,
            "DriverConfig": {
                "Name": "local",
                "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=4m,mode=0755,nosuid,nodev,noexec"},
            },
        },
    }


def folders() -> bytes:
    """The folders of the container contract, open to whatever user the image runs as."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in (_PLACES.input, _PLACES.output, _PLACES.checkpoint):
            folder = tarfile.TarInfo(path.lstrip("/"))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(folder)
    return buffer.getvalue()
