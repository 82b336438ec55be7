"""Who is alive: each supervisor holds a lease at Prefect, renews it, and gives up those of the dead, one at a time.

A lease is a variable of Prefect's. Making one with a name that is taken is refused, and deleting one by its id succeeds
once: whoever makes the variable of a dead supervisor anew has its runs, and nobody else.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from prefect_jobs.blocks.clock import clock
from prefect_jobs.model import Model

# A lease that nobody renewed for so long, while the API was there to renew it, is that of a dead supervisor.
LEASE_SECONDS = 15.0
# How long after its last renewal a supervisor believes that it is not given up.
BELIEVED_SECONDS = 12.0
_PREFIX = "prefect_jobs_supervisor_"
_TAG = "prefect-jobs"
_MOST = 200
_CONFLICT, _NOT_FOUND = 409, 404


class Place(Model):
    """Where a supervisor runs, as far as another on the same machine can tell whether it is still there."""

    host: str
    boot: str
    """The machine's boot and the process' namespace of process ids."""
    pid: int
    started: int | None
    """When the process started, in the kernel's ticks since the machine's start; None where that is not to be seen."""

    @classmethod
    def here(cls) -> Place:
        """The place of this process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=_boot(), pid=pid, started=_started(pid))

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone; False where that cannot be seen from here."""
        if self.boot != _boot():
            return False
        if not psutil.pid_exists(self.pid):
            return True
        # Its number may be another's by now.
        started = _started(self.pid)
        return None not in (started, self.started) and started != self.started


class Holder(Model):
    """What a lease says."""

    pool: str
    worker: str
    place: Place
    renewed: int = 0
    """Counts up with each renewal; no clock of another machine is compared."""
    heir: str | None = None
    """Who takes over the runs of this dead supervisor."""


class Lost(Exception):
    """The lease is not there any more: another supervisor has taken over the runs."""


class Lease:
    """The lease of one life of a supervisor; after `Lost` it takes a new one."""

    def __init__(self, pool: str, worker: str) -> None:
        self.id = uuid4().hex
        self._holder = Holder(pool=pool, worker=worker, place=Place.here())
        self._variable: UUID | None = None
        self.held_until = 0.0
        """Until when nobody else has given it up, by `clock`."""

    @property
    def worker(self) -> str:
        """The name of the worker that holds it."""
        return self._holder.worker

    @property
    def is_held(self) -> bool:
        """Whether its supervisor may take runs and report of them."""
        return clock() < self.held_until

    async def take(self, client: PrefectClient) -> None:
        """Take or renew it.

        Raises:
            Lost: somebody has given it up meanwhile.
            httpx.HTTPError: the API does not answer.
        """
        asked = clock()
        if self._variable is None:
            self._variable = await _make(client, self.id, self._holder)
            if self._variable is None:
                raise Lost
            self.held_until = asked + BELIEVED_SECONDS
            return
        self._holder = self._holder.model_copy(update={"renewed": self._holder.renewed + 1})
        value = self._holder.model_dump(mode="json")
        try:
            await client.request("PATCH", "/variables/{id}", path_params={"id": self._variable}, json={"value": value})
        except httpx.HTTPStatusError as error:
            if error.response.status_code == _NOT_FOUND:
                self.held_until = 0.0
                raise Lost from error
            raise
        self.held_until = asked + BELIEVED_SECONDS

    async def give_back(self, client: PrefectClient) -> None:
        """Let the next supervisor have the runs at once."""
        self.held_until = 0.0
        if self._variable is not None:
            await _delete(client, self._variable)
            self._variable = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease as it was read."""

    variable: UUID
    holder: Holder


async def read_leases(client: PrefectClient) -> dict[str, Seen]:
    """All leases there are by their ids."""
    listed: list[dict[str, Any]] = []
    while len(listed) % _MOST == 0:
        chosen = {"variables": {"name": {"like_": _PREFIX}}, "sort": "NAME_ASC", "limit": _MOST, "offset": len(listed)}
        page = (await client.request("POST", "/variables/filter", json=chosen)).json()
        listed += page
        if not page:
            break
    found = {}
    for variable in listed:
        try:
            holder = Holder.model_validate(variable["value"])
        except ValidationError:
            continue  # Of another release.
        found[str(variable["name"]).removeprefix(_PREFIX)] = Seen(UUID(variable["id"]), holder)
    return found


async def claim(client: PrefectClient, dead: str, lease: Seen | None, heir: str, pool: str) -> UUID | None:
    """Become the one who takes over the runs of a dead supervisor; None where another one does.

    What is returned is to be deleted with `finish` when they are taken over.
    """
    if lease is not None:
        if not await _is_as_it_was(client, lease):
            return None
        await _delete(client, lease.variable)
    holder = Holder(pool=pool, worker="", place=Place.here(), heir=heir)
    return await _make(client, dead, holder)


async def _is_as_it_was(client: PrefectClient, lease: Seen) -> bool:
    """Whether nobody has renewed a lease since it was read: its supervisor may have been silent, and not dead."""
    try:
        answer = await client.request("GET", "/variables/{id}", path_params={"id": lease.variable})
    except (httpx.HTTPStatusError, ObjectNotFound) as error:
        if isinstance(error, ObjectNotFound) or error.response.status_code == _NOT_FOUND:
            return True
        raise
    return bool(answer.json()["value"] == lease.holder.model_dump(mode="json"))


async def finish(client: PrefectClient, claimed: UUID) -> None:
    """The runs of the dead supervisor are taken over."""
    await _delete(client, claimed)


async def _make(client: PrefectClient, lease: str, holder: Holder) -> UUID | None:
    name = _PREFIX + lease
    wanted: dict[str, Any] = {"name": name, "value": holder.model_dump(mode="json"), "tags": [_TAG]}
    try:
        response = await client.request("POST", "/variables/", json=wanted)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != _CONFLICT:
            raise
        # The answer to an earlier request may have been lost: then it is ours.
        there = await client.read_variable_by_name(name)
        return there.id if there is not None and there.value == wanted["value"] else None
    return UUID(response.json()["id"])


async def _delete(client: PrefectClient, variable: UUID) -> None:
    try:
        await client.request("DELETE", "/variables/{id}", path_params={"id": variable})
    except httpx.HTTPStatusError as error:
        if error.response.status_code != _NOT_FOUND:
            raise


def _started(pid: int) -> int | None:
    """When a process started (proc(5), /proc/pid/stat, field 22): no clock that somebody sets has a part in it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


@cache
def _boot() -> str:
    """The boot of this machine, and the namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
