"""A part as several processes at once, one for each of its pieces: compiling takes long, and there are many cores.

In a dry run, one after the other in this process: what takes long is to start one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.run import Run

_SPARE = 12.0  # seconds before the part's own end


def spread(run: Run, part: str, pieces: Sequence[str], work: Callable[[Run], None]) -> None:
    """Run `part`, whose function is `work`, with each of the pieces selected; findings come together here."""
    if run.dry:
        for piece in pieces:
            work(replace(run, select=piece))
        return
    begun = time.perf_counter()
    limit = run.limit - _SPARE if run.limit else float("inf")
    with tempfile.TemporaryDirectory(prefix="mythos-gpu-") as name:
        folder = Path(name)
        running = {}
        for piece in pieces:
            command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--select", piece]
            command += ["--save", str(folder / f"{piece}.json"), "--bundles", str(run.bundles)]
            command += ["--examples", str(run.examples), "--bandwidth", str(run.bandwidth), "--flops", str(run.flops)]
            with (folder / f"{piece}.log").open("w") as log:
                running[piece] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        for piece, process in running.items():
            ended: int | str
            try:
                ended = process.wait(max(limit - (time.perf_counter() - begun), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                ended = "stopped: out of time"
            saved = folder / f"{piece}.json"
            run.record.found.update(json.loads(saved.read_text()) if saved.exists() else {})
            if ended != 0:
                run.record.found[f"{piece} ended"] = {
                    "error": ended,
                    "log": (folder / f"{piece}.log").read_text()[-800:],
                }
            run.record.say(f"{piece} seconds", round(time.perf_counter() - begun, 1))
    run.record.say("failed", run.record.failed)
