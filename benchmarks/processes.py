"""Processes that serve during a measurement, and are gone after it with all that they started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from prefect_jobs.deployments.demo_processes import Background


@asynccontextmanager
async def serving(
    name: str, log: Path, env: Mapping[str, str], *command: str | Path, user: str | None = None
) -> AsyncIterator[Background]:
    """A process, in a session of its own; what it writes goes to a file."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=log.parent,
            env={**os.environ, **env},
            start_new_session=True,
            user=user,
        )
    background = Background(name, process, log)
    try:
        yield background
    finally:
        await background.stop(30)


async def call(env: Mapping[str, str], *command: str | Path, user: str | None = None) -> str:
    """What a command printed.

    Raises:
        RuntimeError: its exit code was not 0.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **env},
        user=user,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{words} ended with exit code {process.returncode}:\n{output.decode(errors='replace')}")
    return output.decode()


async def until(ask: Callable[[], Awaitable[bool]], seconds: float, what: str, *needed: Background) -> None:
    """Wait until something is so, as long as all that is needed for it runs."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await ask():
        for each in needed:
            if each.process.returncode is not None:
                raise RuntimeError(f"{what}: {each.name} has ended:\n" + "\n".join(each.tail()))
        if asyncio.get_running_loop().time() > deadline:
            last = "\n".join(line for each in needed for line in [f"{each.name}:", *each.tail()])
            raise TimeoutError(f"{what}: not within {seconds:g} s\n{last}")
        await asyncio.sleep(0.1)
