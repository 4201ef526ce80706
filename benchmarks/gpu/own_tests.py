"""The project's tests for a GPU, tests/gpu."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.run import Run

_ROOT = Path(__file__).resolve().parents[2]


def main(run: Run) -> None:
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-rA", "-q", "-p", "no:cacheprovider"]
    command += ["-k", run.select] if run.select else []
    command += ["--collect-only"] if run.dry else []
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=run.limit or None)
    run.record.say("tests", {"ok": done.returncode == 0, "rc": done.returncode, "tail": done.stdout[-6000:]})
    if done.returncode:
        run.record.say("errors", done.stderr[-1500:])
