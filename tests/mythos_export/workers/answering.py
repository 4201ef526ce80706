"""What the workers of `test_workers.py` are asked for; `python answering.py` keeps such a worker until it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mythos_export.errors import KernelResourceError, ToolFailed
from mythos_export.progress import Progress
from mythos_export.workers.near import Worker


class Answering:
    def __init__(self, report: Progress) -> None:
        self.report = report

    def double(self, arrays: dict[str, np.ndarray], note: str) -> dict[str, Any]:
        print("not an answer")
        os.write(1, b"nor is this\n")
        self.report("doubling", 0.5)
        return {"note": note, "input": sys.stdin.read(), "arrays": {name: 2 * array for name, array in arrays.items()}}

    def variables(self, names: list[str]) -> dict[str, Any]:
        return {name: os.environ.get(name) for name in names}

    def fail(self, how: str) -> None:
        if how == "kernel":
            raise KernelResourceError("it spills")
        if how == "tool":
            raise ToolFailed("refused", details=("node a", "node b"))
        raise ValueError("" if how == "wordless" else "first line\nsecond line")

    def die(self, how: str) -> None:
        self.report("dying")
        print("last words", file=sys.stderr, flush=True)
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), getattr(signal, how))

    def sleep(self, child: str) -> None:
        """With a child of its own, whose id goes into the file `child`."""
        started = subprocess.Popen(["sleep", "600"])
        Path(child).write_text(f"{os.getpid()} {started.pid}")
        self.report("sleeping")
        time.sleep(600)


if __name__ == "__main__":
    Worker("answering:Answering", "the worker").ask("sleep", child=sys.argv[1])
