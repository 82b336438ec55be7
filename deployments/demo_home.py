"""The demo's home: a Prefect of its own, apart from the person's profile, settings and server."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect_jobs.errors import InfrastructureError

_UI_PORTS = range(4200, 4210)


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """Refuse a second demo in the same folder: two servers would share a database."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InfrastructureError(f"another demo is running in {home}; wait until it has ended") from None
        yield


@contextmanager
def own_environment(home: Path) -> Iterator[None]:
    """The environment of the demo's processes and of Prefect in this one; nothing of the person's own Prefect."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("PREFECT_"):
            del os.environ[name]
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{_free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        **{name: f"{before.get(name, '')},127.0.0.1".lstrip(",") for name in ("NO_PROXY", "no_proxy")},
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def own_settings() -> Iterator[None]:
    """Settings that Prefect made before the environment was the demo's own, replaced by those of the environment."""
    from prefect.context import SettingsContext
    from prefect.settings import Profile, Settings

    with SettingsContext(profile=Profile(name="demo", settings={}), settings=Settings()):
        yield


def _free_port(*wanted: int) -> int:
    """A free port of the loopback interface, the first of the wanted ones if it can be had."""
    for port in (*wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise InfrastructureError("no port of 127.0.0.1 is free; end something that listens, then run the demo again")


def write_profile(home: Path) -> str:
    """Say in the home's profile where its server will be, so that PREFECT_HOME alone leads there; the UI's URL."""
    port = _free_port(*_UI_PORTS)
    (home / "profiles.toml").write_text(
        f'''active = "demo"

[profiles.demo]
PREFECT_API_URL = "http://127.0.0.1:{port}/api"
PREFECT_SERVER_API_PORT = "{port}"
'''
    )
    return f"http://127.0.0.1:{port}"
