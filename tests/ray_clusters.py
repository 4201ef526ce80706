"""`mythos serve --ray` as a process of its own, and the actors of a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import psutil

PROGRAM = [sys.executable, "-c", "from mythos_runtime.cli import mythos; mythos()", "serve"]
ENVIRONMENT = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}


class RayServer(NamedTuple):
    url: str
    process: int
    """Its number."""


@contextlib.contextmanager
def ray_server(bundle: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[RayServer]:
    """Serve a bundle with one thread a replica; it answers when this is entered."""
    port = free_port()
    given = ["--ray", "--port", str(port), "--threads", "1", "--memory", "32MiB", *options]
    with subprocess.Popen([*PROGRAM, str(bundle), *given], env=ENVIRONMENT | (environment or {})) as process:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 300  # Ray's processes, beside other tests
        try:
            while not _answers(url):
                assert process.poll() is None and time.monotonic() < until, "no replica has started"
                time.sleep(0.5)
            yield RayServer(url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def actors(driver: int, name: str) -> list[psutil.Process]:
    """The processes of the actors of the cluster that a process has started; Ray names them so."""
    found = []
    for each in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            if each.name().startswith(f"ray::{name}"):
                found.append(each)
    return found


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
