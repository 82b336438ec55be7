"""A control group for containers in which a supervisor's own code runs: what they used is known when they are gone."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import call

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """The parent of containers' groups; the engine makes it with the first container."""

    parent: str
    """As Docker takes it for ``cgroup_parent``."""
    cpu_file: Path

    def cpu_seconds(self) -> float:
        """User and system seconds of all containers so far, of those that are gone too."""
        if not self.cpu_file.exists():
            return 0.0
        text = self.cpu_file.read_text()
        if self.cpu_file.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6

    def remove(self) -> None:
        """Remove the group from all hierarchies; an engine does not."""
        for folder in (_ROOT / self.parent.lstrip("/"), *_ROOT.glob(f"*/{self.parent.lstrip('/')}")):
            with suppress(OSError):
                folder.rmdir()


async def cgroup(name: str) -> Cgroup:
    """A group of the local engine's driver and version (Docker's ``cgroup-parent``; cgroups(7))."""
    words = await call({}, "docker", "info", "--format", "[{{json .CgroupDriver}}, {{json .CgroupVersion}}]")
    driver, group_version = json.loads(words)
    parent = f"{name.replace('-', '')}.slice" if driver == "systemd" else f"/{name}"
    folder = parent.lstrip("/")
    if group_version == "2":
        return Cgroup(parent, _ROOT / folder / "cpu.stat")
    return Cgroup(parent, _ROOT / "cpuacct" / folder / "cpuacct.usage")
