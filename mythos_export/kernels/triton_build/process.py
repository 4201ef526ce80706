"""Runs `worker.py` in a process of its own, so that triton is imported nowhere else and cannot take the caller down."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from . import errors
from .errors import KernelBuildError, TritonMissingError

Progress = Callable[[str, int], None]
"""Called with a kernel's name and its architecture after each that was compiled."""

_WORKER = "mythos_export.kernels.triton_build.worker"
_TAIL = 20


def missing() -> str | None:
    """What this machine lacks for compiling kernels, in words, or None."""
    if importlib.util.find_spec("triton") is not None:
        return None
    if platform.system() != "Linux":
        return f"triton has no package for {platform.system()}: build the kernels on Linux (a GPU is not needed)"
    return "triton is not installed: pip install 'mythos-export[triton]'"


def run_worker(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The worker's result; its errors are raised here."""
    lack = missing()
    if lack:
        raise TritonMissingError(lack)
    with tempfile.TemporaryDirectory(prefix="mythos-triton-") as cache:
        worker = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(cache),
        )
        assert worker.stdin and worker.stdout and worker.stderr
        tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        reader = threading.Thread(target=_drain, args=(worker.stderr, tail), daemon=True)
        reader.start()
        final: dict[str, Any] | None = None
        with worker:
            json.dump(request, worker.stdin)
            worker.stdin.close()
            for line in worker.stdout:
                event = json.loads(line)
                if "kernel" in event:
                    progress(event["kernel"], event["architecture"])
                else:
                    final = event
        reader.join()
    if final is None:
        raise KernelBuildError(
            f"the compiling process left with status {worker.returncode} and no result; the end of its log: "
            + ("\n".join(tail) or "nothing")
        )
    if "error" in final:
        raise getattr(errors, final["kind"])(final["error"])
    result: dict[str, Any] = final["result"]
    return result


def _environment(cache: str) -> dict[str, str]:
    """A cache of its own: what is compiled depends on nothing left behind, and ptxas always runs and reports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TRITON_ALWAYS_COMPILE": "1",  # two kernels of a model may be the same code
        "TRITON_CACHE_DIR": cache,
        "TRITON_DISABLE_LINE_INFO": "1",
        "TRITON_DUMP_PTXAS_LOG": "1",
    }


def _drain(stream: IO[str], tail: collections.deque[str]) -> None:
    """Keep the end of a stream that must not fill up."""
    for line in stream:
        tail.append(line.rstrip())
