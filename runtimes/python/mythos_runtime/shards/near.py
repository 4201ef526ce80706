"""Shards as processes of this machine."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

from mythos_runtime.errors import BackendFailed, BundleError

Address = tuple[str, int]


class Starter(Protocol):
    """Who runs the shards' processes.

    Attributes:
        key: what a trunk proves to know.
    """

    key: bytes

    def start(self, index: int) -> Address:
        """Have a shard's process, in place of one that may be left of it, and say where it listens. Called from one
        thread for each shard. Raises RuntimeBundleError."""
        ...

    def stop(self) -> None:
        """End them all."""
        ...


class Processes:
    """A process for each shard, which ends when this one does, however that ends."""

    def __init__(self, folder: Path, count: int, threads: int | None) -> None:
        """`threads`: of each; None: the cores there are, dealt evenly."""
        self.key = secrets.token_bytes(32)
        self._folder, self._threads = folder.resolve(), threads or max(1, (os.cpu_count() or 1) // count)
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._stopped = False
        self._lock = threading.Lock()

    def start(self, index: int) -> Address:
        with self._lock:
            if self._stopped:
                raise BackendFailed("the shards were stopped")
            _end(self._running.pop(index, None))
            # Modules come from where this process finds them, and not from the folder that it happens to stand in (-P).
            variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            program = [sys.executable, "-P", "-m", str(__package__), str(self._folder), str(index), str(self._threads)]
            try:
                process = subprocess.Popen(
                    program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
                )
            except OSError as error:
                raise BackendFailed(f"the process of shard {index + 1} cannot be started: {error}") from error
            self._running[index] = process
        assert process.stdin is not None and process.stdout is not None
        line = ""
        try:
            process.stdin.write(f"{self.key.hex()}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            said = json.loads(line)
        except (OSError, ValueError) as error:
            raise BackendFailed(f"the process of shard {index + 1} {_failed(process, line)}") from error
        if "error" in said:
            raise BundleError(said["error"])
        return "127.0.0.1", int(said["port"])

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                _end(process)
            self._running.clear()

    def pid(self, index: int) -> int:
        """The process that is a shard now."""
        return self._running[index].pid


def _failed(process: subprocess.Popen[str], line: str) -> str:
    """What became of a process that did not say where it listens."""
    if line:
        return f"said {line[:200]!r}, expected where it listens"
    try:
        status = process.wait(10)
    except subprocess.TimeoutExpired:
        return "closed its output, and said nothing of where it listens"
    ended = f"was ended by signal {-status}" if status < 0 else f"ended at once with exit status {status}"
    return f"{ended}; what it said of it went to stderr"


def _end(process: subprocess.Popen[str] | None) -> None:
    if process is None:
        return
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
