"""Waiting for a Prefect server that somebody has just started, as with ``prefect server start &``."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

_SECONDS = 30.0
_LOOK = 0.3
_PORTS = {"http": 80, "https": 443}


def wait_for_server(tell: Callable[[str], None]) -> None:
    """Return as soon as something listens where Prefect's API should be, or after so long that nothing will.

    ``tell`` hears once that there is something to wait for. What listens may still be anything: asking it shows.
    """
    url = get_current_settings().api.url
    if not url or not _is_refused(url):
        return
    tell(f"Nothing listens at {url} yet; waiting up to {_SECONDS:g} s for Prefect's server")
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until and _is_refused(url):
        time.sleep(_LOOK)


def _is_refused(url: str) -> bool:
    where = urlsplit(url)
    try:
        port = where.port or _PORTS.get(where.scheme, 443)
        socket.create_connection((where.hostname or "", port), timeout=2).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):  # There is no such host, or a proxy leads to it: the client says what is wrong.
        return False
    return False
