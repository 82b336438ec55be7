"""Which machine a run's container is on, where no other machine sees it.

A supervisor on another one would find no container there, and start the attempt once more.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from prefect.client.schemas.objects import FlowRun

from prefect_jobs.blocks.loading import load_infrastructure
from prefect_jobs.errors import JobError

MACHINE = "PREFECT_JOBS_MACHINE"


@cache
def here() -> str:
    """The name of this machine, and its boot, by which containers on one machine know each other."""
    if named := os.environ.get(MACHINE):
        return f"{'-'.join(named.split())}/"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def is_here(machine: str) -> bool:
    """Whether a machine is this one: of the same name, as after it was started anew, or of the same boot."""
    (name, _, boot), (my_name, _, my_boot) = machine.rpartition("/"), here().rpartition("/")
    return name == my_name or (boot == my_boot != "")


async def is_bound(flow_run: FlowRun) -> bool:
    """Whether only the machine on which a run was begun sees its container."""
    job = flow_run.parameters.get("job")
    if flow_run.run_count == 0 or not isinstance(job, dict):
        return False
    template = job.get("template", {})
    reference = flow_run.parameters.get("infrastructure") or template.get("infrastructure") or "process"
    try:
        return (await load_infrastructure(reference)).is_local
    except JobError:
        return False  # The run itself says what is wrong.
