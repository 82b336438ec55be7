"""No-op containers by the Docker API alone: create, start, wait, remove.

Its argument is how many may be there at once. Reads lines ``COUNT PREFIX IMAGE COMMAND…`` (as a JSON list), and writes
a line ``PREFIX MOMENT`` when all of these containers are gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiodocker


async def run(docker: aiodocker.Docker, name: str, image: str, command: list[str], places: asyncio.Semaphore) -> None:
    async with places:
        config = {"Image": image, "Cmd": command}
        container = await docker.containers.create(config, name=name)
        await container.start()
        ended = await container.wait()
        await container.delete()
        if ended["StatusCode"] != 0:
            raise RuntimeError(f"{name} ended with exit code {ended['StatusCode']}")


async def batch(docker: aiodocker.Docker, line: str, places: asyncio.Semaphore) -> None:
    count, prefix, image, *command = json.loads(line)
    await asyncio.gather(*(run(docker, f"{prefix}-{number}", image, command, places) for number in range(count)))
    print(prefix, time.time(), flush=True)


async def main() -> None:
    places = asyncio.Semaphore(int(sys.argv[1]))
    async with aiodocker.Docker() as docker, asyncio.TaskGroup() as batches:
        # Each container that is waited for holds a connection, of which the client has a hundred by default.
        docker.session.connector._limit = 0  # type: ignore[union-attr]
        while line := await asyncio.to_thread(sys.stdin.readline):
            batches.create_task(batch(docker, line, places))


if __name__ == "__main__":
    asyncio.run(main())
