"""The ports that a worker serves its health and its figures on: whether it can have them is seen before it starts."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from prefect.settings import get_current_settings

from prefect_jobs.errors import InfrastructureError


def check_ports(*, health: bool) -> None:
    """See that the ports are free: without its health endpoint an orchestrator would restart a worker for ever.

    Raises:
        InfrastructureError: one is taken; the message names port and setting.
    """
    settings = get_current_settings()
    wanted: list[tuple[str, str, int, str]] = []
    if health:
        web = settings.worker.webserver
        wanted.append(("its health", web.host, web.port, "PREFECT_WORKER_WEBSERVER_PORT"))
    if settings.client.metrics.enabled:
        # Where Prefect serves them.
        wanted.append(("its figures", "0.0.0.0", settings.client.metrics.port, "PREFECT_CLIENT_METRICS_PORT"))  # noqa: S104
    with ExitStack() as held:
        for what, host, port, setting in wanted:
            try:
                held.enter_context(_listening(host, port))
            except (OSError, OverflowError) as error:
                raise InfrastructureError(
                    f"the worker cannot serve {what} on port {port} of {host} ({error}): end what has that port, or "
                    f"set {setting} to a free one"
                ) from None


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        # As the servers do it: connections that are closing do not count.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening
