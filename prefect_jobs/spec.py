"""What an infrastructure is asked to run: one container, fully resolved but for its secret values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from pydantic import Field

from prefect_jobs.model import Model
from prefect_jobs.quantities import Cpu, Memory

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class Shape(Model):
    """The compute shape: what a container may use. What is not named is not limited."""

    cpu: Cpu | None = None
    """CPU cores."""
    memory: Memory | None = None
    """Memory; past it the kernel kills the container."""
    gpu: int | None = Field(default=None, ge=0)
    """Number of GPUs."""
    shared_memory: Memory | None = None
    """Size of /dev/shm."""


class Security(Model):
    """Rights beyond those of a plain container. The infrastructure block must allow each."""

    privileged: bool = False
    """All capabilities and devices of the host."""
    host_network: bool = False
    """The network of the host instead of one of its own."""
    capabilities: list[str] = []
    """Linux capabilities to add, such as NET_ADMIN."""
    devices: list[str] = []
    """Devices of the host, such as /dev/fuse."""
    user: str | None = None
    """User (and group) to run as: 1000, 1000:1000 or a name that the image knows."""


class Mount(Model):
    """A volume in a container."""

    source: str
    """A volume's name, or the absolute path of a host folder."""
    target: str
    """The absolute path in the container."""
    read_only: bool = False
    """Whether the container may only read it."""

    @property
    def is_host_folder(self) -> bool:
        """Whether the source is a folder of the host."""
        return self.source.startswith("/")


class Identity(Model):
    """Who a container is: the attempt of a run of a job. The engine's own uniqueness is made from it."""

    job: str
    version: str
    run_id: UUID
    run_name: str
    attempt: int = 1
    index: int = 0
    count: int = 1
    installation: str = ""
    """The installation of Prefect that the run belongs to."""
    supervisor: str = ""
    """The process that launches it: ``host/pid``."""

    @property
    def container_name(self) -> str:
        """The name that only this attempt has, on any engine."""
        return f"prefect-jobs-{self.run_id}-{self.attempt}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels by which the attempt is found again on an engine."""
        return {
            "prefect-jobs/job": self.job,
            "prefect-jobs/version": self.version,
            "prefect-jobs/run-id": str(self.run_id),
            "prefect-jobs/attempt": str(self.attempt),
            "prefect-jobs/installation": self.installation,
            "prefect-jobs/supervisor": self.supervisor,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The names by which a container knows who it is."""
        return {
            "JOB_NAME": self.job,
            "JOB_VERSION": self.version,
            "JOB_RUN_ID": str(self.run_id),
            "JOB_RUN_NAME": self.run_name,
            "JOB_ATTEMPT": str(self.attempt),
            "JOB_INDEX": str(self.index),
            "JOB_COUNT": str(self.count),
        }


# Every name that a container is promised to find set; nobody overrides them.
RESERVED_ENVIRONMENT = frozenset(
    {
        *("JOB_NAME", "JOB_VERSION", "JOB_RUN_ID", "JOB_RUN_NAME", "JOB_ATTEMPT", "JOB_INDEX", "JOB_COUNT"),
        *("JOB_INPUT_DIR", "JOB_OUTPUT_DIR", "JOB_CHECKPOINT_DIR"),
        *("JOB_INPUT_URI", "JOB_OUTPUT_URI", "JOB_CHECKPOINT_URI"),
        *("LAB_ENDPOINT", "LAB_API_TOKEN", "LAB_PROJECT"),
    }
)


class Places(Model):
    """The folders that every container finds, by the path it sees them at."""

    input: str = "/data/input"
    output: str = "/data/output"
    checkpoint: str = "/data/checkpoint"

    @property
    def environment(self) -> dict[str, str]:
        """The names by which a container finds its folders."""
        return {"JOB_INPUT_DIR": self.input, "JOB_OUTPUT_DIR": self.output, "JOB_CHECKPOINT_DIR": self.checkpoint}


# Where a container finds the secrets that come as files, as in Docker's own services.
SECRETS_FOLDER = "/run/secrets"


def file_variable(secret: str) -> str:
    """The environment variable by which a container finds a secret's file, as images' entrypoints know it."""
    return f"{secret}_FILE"


class ContainerSpec(Model):
    """One container to run. Holds no secret value: ``secrets`` names the Prefect Secret blocks."""

    image: str | None = None
    """The image, pinned where its deployment pinned it; None runs on what the machine has."""
    command: list[str] | None = None
    """Replaces the image's entrypoint; with None the image's own is used."""
    args: list[str] | None = None
    """Arguments of the command, or of the image's entrypoint; with None the image's own are used."""
    env: dict[str, str] = {}
    """Environment variables that the job and the run set."""
    secrets: dict[str, str] = {}
    """Environment variable: name of a Prefect Secret block."""
    secret_files: dict[str, str] = {}
    """Secrets that come as a file and not as a variable: name of the file in the secrets' folder."""
    inputs: dict[str, str] = {}
    """Name in /data/input: URI of the file or prefix that is there when it starts."""
    shape: Shape = Shape()
    mounts: list[Mount] = []
    security: Security = Security()
    pull_policy: PullPolicy = "IfNotPresent"
    grace_seconds: float = 10.0
    """Seconds from SIGTERM to SIGKILL when it is stopped."""
    start_timeout: float | None = None
    """Seconds in which the container must have started, pull included; None is ten minutes."""
    attempt_timeout: float | None = None
    """Seconds that it may run; None is no limit."""
    keep_seconds: float | None = None
    """Seconds that it is kept for a look after it failed; None removes it at once."""

    def secret_environment(self, values: Mapping[str, str], folder: str = SECRETS_FOLDER) -> dict[str, str]:
        """The variables of the secrets: a value, or the path of the file that has it, below ``folder``."""
        files = self.secret_files
        return {name: value for name, value in values.items() if name not in files} | {
            file_variable(name): f"{folder}/{file}" for name, file in files.items()
        }

    def secret_contents(self, values: Mapping[str, str]) -> dict[str, str]:
        """What the secrets' files hold, by their name in the secrets' folder."""
        return {file: values[name] for name, file in self.secret_files.items()}
