"""A registry of a test's own: with a password, and with a door that turns away whom it likes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hosts import docker
from needs import needs, wait_until
from ports import free_port
from prefect_docker.credentials import DockerRegistryCredentials

USER, PASSWORD = "somebody", "s3cret-of-the-registry"


@dataclass(frozen=True)
class Registry:
    address: str
    login: Path

    @property
    def credentials(self) -> DockerRegistryCredentials:
        return DockerRegistryCredentials(username=USER, password=PASSWORD, registry_url=self.address)

    def push(self, source: str, name: str) -> str:
        """Push a local image, forget it locally, and return its name in the registry."""
        name = f"{self.address}/{name}"
        docker("tag", source, name)
        docker("--config", str(self.login), "push", "--quiet", name)
        self.forget(name)
        return name

    def forget(self, name: str) -> None:
        subprocess.run(["docker", "rmi", name], capture_output=True)


@contextmanager
def registry_in(folder: Path) -> Iterator[Registry]:
    """A registry that keeps its images in a folder."""
    program, htpasswd = shutil.which("docker-registry"), shutil.which("htpasswd")
    if not program or not htpasswd:
        needs("no private registry: apt-get install docker-registry apache2-utils")
    address = f"127.0.0.1:{free_port()}"
    passwords = subprocess.run([str(htpasswd), "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True)
    (folder / "htpasswd").write_text(passwords.stdout)
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\nlog: {{level: error}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
    try:
        registry = Registry(address, folder / "login")
        _wait_for(address)
        docker("--config", str(registry.login), "login", "--username", USER, "--password", PASSWORD, address)
        yield registry
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    wait_until(answers, 20, "the registry")


@asynccontextmanager
async def busy_door(registry: Registry, refusals: int) -> AsyncIterator[str]:
    """The address of a door to a registry that answers the first requests with "too many requests"."""
    left = refusals
    host, _, port = registry.address.partition(":")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if left > 0 and b"/manifests/" in head:
                left -= 1
                body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit"}]}'
                writer.write(
                    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                await writer.drain()
                return
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            with contextlib.closing(inner_writer):
                # One request for a connection, so that each is looked at.
                inner_writer.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                while data := await inner_reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
