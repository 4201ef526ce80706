"""Runs `worker.py` in a process of its own and turns whatever becomes of it into a value."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

WORKER = Path(__file__).with_name("worker.py")
Event = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """The end of a worker: its exit status (negative: a signal), its `result` or `error` event, and its last phase."""

    returncode: int
    timed_out: bool
    final: Event | None
    phase: str | None

    def describe(self) -> str:
        """What happened to a worker that died without an event of its own, in words."""
        if self.timed_out:
            return "ran out of time and was stopped"
        if self.returncode >= 0:
            return f"left with exit status {self.returncode} and no result"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:
            name = f"signal {-self.returncode}"
        hints = {
            "SIGABRT": "aborted (SIGABRT)",
            "SIGSEGV": "crashed (SIGSEGV)",
            "SIGKILL": "was killed (SIGKILL; often the machine ran out of memory)",
        }
        return hints.get(name, f"was ended by {name}")


@contextlib.contextmanager
def library_folder(module: str) -> Iterator[Path | None]:
    """A temporary folder in which TensorRT-RTX's library has the name that its own parser looks for.

    The parser opens `libtensorrt_rtx.so` when a node resolves to a plugin and aborts the process if there is none; the
    wheel ships `libtensorrt_rtx.so.1` only. The folder has to be on the search path before the process starts. Yields
    None where there is nothing to mend (full TensorRT, no such wheel, or an operating system without such links).
    """
    spec = importlib.util.find_spec("tensorrt_rtx_libs") if module == "tensorrt_rtx" and os.name == "posix" else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    libraries = [file for folder in folders for file in sorted(Path(folder).glob("libtensorrt_rtx.so.*"))]
    if not libraries:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mythos-tensorrt-") as folder:
        (Path(folder) / "libtensorrt_rtx.so").symlink_to(libraries[0].resolve())
        yield Path(folder)


def worker_environment(library: Path | None) -> dict[str, str]:
    folders = [os.environ.get("PYTHONPATH"), *sys.path]  # so that the worker finds the plug-ins of this very package
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder)}
    if library is not None:
        rest = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{library}{os.pathsep}{rest}" if rest else str(library)
    return environment


def run_worker(
    arguments: Sequence[str],
    *,
    module: str,
    log: IO[bytes],
    timeout_s: float,
    on_event: Callable[[Event], None] | None = None,
) -> Finished:
    """Runs `worker.py ARGUMENTS` with its stderr in `log`, calling `on_event` for every progress event.

    Returns when the worker ended or was stopped after `timeout_s`; an exception of `on_event` stops it too.
    """
    deadline = time.monotonic() + timeout_s
    final: Event | None = None
    phase: str | None = None
    timed_out = False
    with library_folder(module) as library:
        process = subprocess.Popen(
            # -P: the worker's own folder stays off the import path, or its neighbours would shadow other modules
            [sys.executable, "-P", str(WORKER), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=worker_environment(library),
        )
        lines: queue.Queue[bytes | None] = queue.Queue()
        reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    timed_out = True
                    break
                if line is None or not line.endswith(b"\n"):  # a line cut short: the process died while writing it
                    break
                event: Event = json.loads(line)
                if event["event"] == "progress":
                    phase = event["phase"]
                    if on_event is not None:
                        on_event(event)
                else:
                    final = event
            if not timed_out:
                # stdout is closed, so the process is about to end; one that hangs in its exit handlers is stopped
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(1.0, min(30.0, deadline - time.monotonic())))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join()
            if process.stdout is not None:
                process.stdout.close()
    return Finished(process.returncode, timed_out, final, phase)


def _read_lines(stream: IO[bytes] | None, lines: queue.Queue[bytes | None]) -> None:
    if stream is not None:
        for line in stream:
            lines.put(line)
    lines.put(None)
