"""Reads and writes out of bounds: a few cases of every kernel under compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from benchmarks.gpu.run import Run

_SPARE = 8.0


def main(run: Run) -> None:
    tool = shutil.which("compute-sanitizer")
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", "kernels", "--examples", "3"]
    if run.dry:
        run.record.say("command", ["compute-sanitizer", *command])
        return
    if tool is None:
        run.record.say("not here", "compute-sanitizer is not on the path")
        return
    limit = max(run.limit - _SPARE, 10.0) / 3
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for op in ("moe", "mla_attention", "gqa_attention"):
        with run.record.step(op):
            sanitized = [tool, "--tool", "memcheck", "--error-exitcode", "9", *command, "--select", f"{op}-fp16"]
            done = subprocess.run(sanitized, capture_output=True, text=True, timeout=limit, env=environment)
            tail = (done.stdout + done.stderr)[-700:]
            run.record.say(op, {"ok": done.returncode == 0, "rc": done.returncode, "tail": tail})
