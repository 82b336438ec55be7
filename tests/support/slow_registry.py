"""A registry whose image never arrives: its one layer comes a byte at a time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class SlowRegistry:
    """Answers what an engine asks for (Registry HTTP API V2), but for the layer."""

    def __init__(self) -> None:
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        self._config = config.encode()
        # An engine that has a layer of this digest would not ask for it.
        layer = hashlib.sha256(os.urandom(16)).hexdigest()
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(self._config),
                "digest": f"sha256:{hashlib.sha256(self._config).hexdigest()}",
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "size": 1 << 30,
                    "digest": f"sha256:{layer}",
                }
            ],
        }
        self._manifest = json.dumps(document).encode()
        self._layer = layer
        self.image = ""
        """The image's name."""
        self.pulls = 0
        """How many are being served the layer."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = request.partition("\r\n")[0].split()
            if self._layer in path:
                self.pulls += 1
                try:
                    _head(writer, 1 << 30, "application/octet-stream")
                    while True:
                        writer.write(b"\0")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                finally:
                    self.pulls -= 1
            body, kind = b"{}", "application/json"
            if "/manifests/" in path:
                body, kind = self._manifest, _MANIFEST
            elif "/blobs/" in path:
                body = self._config
            _head(writer, len(body), kind, f"sha256:{hashlib.sha256(body).hexdigest()}")
            if method != "HEAD":
                writer.write(body)
            await writer.drain()
        writer.close()


def _head(writer: asyncio.StreamWriter, length: int, kind: str, digest: str = "") -> None:
    lines = ["HTTP/1.1 200 OK", "Docker-Distribution-Api-Version: registry/2.0", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {length}", "Connection: close"]
    lines += [f"Docker-Content-Digest: {digest}"] if digest else []
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


@asynccontextmanager
async def slow_registry() -> AsyncIterator[SlowRegistry]:
    """A registry, serving."""
    registry = SlowRegistry()
    server = await asyncio.start_server(registry.answer, "127.0.0.1", 0)
    registry.image = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/slow:1"
    try:
        yield registry
    finally:
        server.close()
