"""What a turn that was broken off leaves on the engine, removed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

import aiodocker

from benchmarks.measure import Attributes
from benchmarks.peers.jobs import RUN_ID
from benchmarks.processes import call


async def remove_leftovers(keys: Collection[str], key: Callable[[Attributes], str | None]) -> list[str]:
    """Remove the containers of these runs, and their volumes; the names of what was there."""
    removed = []
    async with aiodocker.Docker() as docker:
        for container in await docker.containers.list(all=True):
            name = container["Names"][0].removeprefix("/")
            if key({**container["Labels"], "name": name}) in keys:
                with suppress(aiodocker.DockerError):
                    await container.delete(force=True, v=True)
                    removed.append(name)
    listed = ("docker", "volume", "ls", "--filter", f"label={RUN_ID}", "--format")
    for line in (await call({}, *listed, f'{{{{ .Name }}}} {{{{ .Label "{RUN_ID}" }}}}')).splitlines():
        volume, run_id = line.split()
        if run_id in keys:
            await call({}, "docker", "volume", "rm", "--force", volume)
            removed.append(volume)
    return removed
