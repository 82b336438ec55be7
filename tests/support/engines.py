"""A Docker engine of a test's own, which it may stop and start."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from needs import needs


class OwnEngine:
    """An engine below a folder, in a network namespace of its own: containers there have no network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._containerd: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        """Start the engine and wait until it answers."""
        if self._containerd is None:
            self._containerd = await self._run("containerd", f"--config={self._config()}")
        self._process = await self._run(
            # An engine without a bridge removes docker0, which is another engine's, from the namespace it runs in.
            *("unshare", "--net", "dockerd", "--bridge=none", "--iptables=false", f"--host={self.url}"),
            *(f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid"),
            *(f"--containerd={self.folder}/containerd.sock", *options),
        )
        async with asyncio.timeout(30):
            while (await (await self._info()).wait()) != 0:
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.1)

    def _config(self) -> Path:
        """containerd's own: it outlives the engine, which waits long for one that it cannot reach any more."""
        path = self.folder / "containerd.toml"
        path.write_text(
            f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.folder}/containerd.sock"\n'
        )
        return path

    async def _run(self, *command: str) -> asyncio.subprocess.Process:
        with (self.folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def load(self, image: str) -> None:
        """Give it an image of the machine's usual engine."""
        command = f"docker save {image} | docker -H {self.url} load"
        loading = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.DEVNULL)
        assert await loading.wait() == 0

    async def _info(self) -> asyncio.subprocess.Process:
        quiet = asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec("docker", "-H", self.url, "info", stdout=quiet, stderr=quiet)

    async def kill(self) -> None:
        """Kill the engine, as a crash would; its containers live on until another one starts."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Stop the engine in good order."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def end(self) -> None:
        """Stop all that was started."""
        await self.stop()
        if self._containerd is not None:
            self._containerd.terminate()
            await self._containerd.wait()


@asynccontextmanager
async def own_engine() -> AsyncIterator[OwnEngine]:
    """An engine that is not started yet, and of which nothing is left in the end."""
    if not shutil.which("dockerd") or not shutil.which("unshare"):
        needs("no dockerd: apt-get install docker.io util-linux")
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = OwnEngine(folder)
    try:
        yield engine
    finally:
        await engine.end()
        # An engine that keeps containers alive leaves its data folder mounted.
        subprocess.run(["umount", "--recursive", folder / "data"], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
