"""What all attempts of one run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from prefect.client.orchestration import PrefectClient

from prefect_jobs.blocks.engine import Engine
from prefect_jobs.blocks.store import Store
from prefect_jobs.flows.mask import Mask
from prefect_jobs.flows.staging import Staging
from prefect_jobs.job import Job
from prefect_jobs.spec import ContainerSpec, Identity


@dataclass(frozen=True)
class Plan:
    """A run as it was asked for and checked: what to run, where, and as whom."""

    client: PrefectClient
    job: Job
    engine: Engine
    infrastructure: str
    """The infrastructure as people name it."""
    spec: ContainerSpec
    identity: Identity
    """Of the run; each attempt has its own number."""
    secrets: Mapping[str, str] = field(repr=False)
    """Environment variable: secret value."""
    store: Store
    """The job's store, or one that only reads inputs."""

    def numbered(self, attempt: int) -> Identity:
        """The identity of an attempt."""
        return self.identity.model_copy(update={"attempt": attempt})

    def staging(self, attempt: Identity) -> Staging:
        """What an attempt takes from the store and leaves there."""
        return Staging(self.job, self.spec, attempt, self.store, self.mask)

    def spec_of(self, attempt: Identity) -> ContainerSpec:
        """The container of an attempt, which finds its places in the store, too."""
        return self.spec.model_copy(update={"env": {**self.spec.env, **self.staging(attempt).environment}})

    @cached_property
    def mask(self) -> Mask:
        """Hides the run's secrets."""
        return Mask(self.secrets.values())
