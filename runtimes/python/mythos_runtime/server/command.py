"""The app in uvicorn: where it listens, how it logs, and how it ends."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn
from sse_starlette.sse import AppStatus

from mythos_runtime.errors import RequestError, RuntimeBundleError
from mythos_runtime.server.app import make_app
from mythos_runtime.server.served import Served

_BACKLOG = 2048

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": level, "propagate": False}
        for name, level in {"uvicorn": "WARNING", "uvicorn.access": "INFO", "mythos_runtime.server": "INFO"}.items()
    },
}
"""stdout stays empty. The access log has method, path and status; no prompt."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket (OSError where the port is taken, RequestError where there is no such address)."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise RequestError(f"there is no address {host}: {error.strerror}") from error
    try:
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at {host}:{port}: {error.strerror}") from error


def address(listening: socket.socket) -> str:
    """What a browser calls it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(served: Served, listening: socket.socket, drain_seconds: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then no new connection is taken, and who was served has `drain_seconds` to end."""
    AppStatus.disable_automatic_graceful_drain()  # or streams would be cut off at once
    config = uvicorn.Config(
        make_app(served),
        http="h11",  # httptools, which Ray brings along, takes two lengths of one body
        log_config=LOGGING,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    server = uvicorn.Server(config)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # which uvicorn raises again once it has ended well
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
    if not server.started:
        raise RuntimeBundleError("the server did not start; the log says why")
