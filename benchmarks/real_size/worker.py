"""A process that measures a round whenever it is asked to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any


class Worker:
    """A process that answers a line with a line of JSON."""

    def __init__(self, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def round(self) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        said = self.process.stderr.read() if self.process.stderr is not None else ""
        sys.exit(f"{self.process.args!r} has ended: {said[-2000:]}")

    def close(self) -> None:
        self.process.communicate(timeout=60)
