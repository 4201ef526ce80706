"""`mythos serve` in a process of its own, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

NAME = "model"
_START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """Where it is, and its process."""

    url: str
    process: psutil.Process

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        lines = httpx2.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@contextlib.contextmanager
def served(bundle: Path, *options: str) -> Iterator[Server]:
    """Serve a bundle with one thread and these options. Raises RuntimeError where it does not start."""
    program = [sys.executable, "-c", "from mythos_runtime.cli import mythos; mythos()"]
    arguments = ["serve", str(bundle), "--port", "0", "--name", NAME, "--threads", "1", *options]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen([*program, *arguments], text=True, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            url = _address(process, log.fileno())
            yield Server(url, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(120)


def _address(process: subprocess.Popen[str], log: int) -> str:
    """Where it listens, once it answers there."""
    watched = psutil.Process(process.pid)
    for _ in range(_START_SECONDS * 10):
        with open(f"/proc/self/fd/{log}", encoding="utf-8") as text:
            found = re.search(r"http://[\w.:]+", said := text.read())
        if found is not None:
            httpx2.get(f"{found[0]}/health", timeout=60).raise_for_status()
            return found[0]
        with contextlib.suppress(psutil.TimeoutExpired):
            watched.wait(0.1)
            break
    raise RuntimeError(f"mythos serve did not start: {said}")
