"""The process in which one backend runs: `python -m mythos_export.bench.worker MODULE:CLASS`.

A line of JSON on stdin is a request, {"do": method, ...}; a line of JSON on stdout answers it. Every backend has a
process of its own, so that none meets the threads, the memory or the crash of another, and each peak of memory is its
own. `contestant.py` is the other end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mythos_export.bench.backends.backend import Backend, Call, Setting
from mythos_export.bench.resources import EnergyCounter, forget_peak_memory, peak_memory, pin_all_threads
from mythos_export.bench.workloads import Workload, load_case

SHORT = 0.05  # a call below this many seconds is run once, unmeasured, at the start of every turn: others ran meanwhile


class Worker:
    """Answers requests with one backend; a method per request."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: dict[str, Call] = {}
        self.energy = EnergyCounter()
        self.not_compiled: dict[str, str] = {}

    def load(self, bundle: str, checkpoint: str | None, threads: int, scratch: str, inputs: str, trained: int) -> Any:
        self.inputs, self.trained = Path(inputs), trained
        setting = Setting(Path(bundle), Path(checkpoint) if checkpoint else None, threads, Path(scratch))
        lack = self.backend.missing(setting)
        if lack:
            return {"missing": lack}
        started = time.perf_counter()
        description = self.backend.load(setting)
        return {
            "name": self.backend.name,
            "description": description,
            "load_seconds": time.perf_counter() - started,
            "restarts": self.backend.restarts,
            "device": self.backend.device,
            "energy_missing": self.energy.missing,
        }

    def compile(self, workload: dict[str, Any]) -> Any:
        """With every core that there is: only what comes later is timed. A failure is of this workload alone."""
        chosen = Workload.from_json(workload)
        started, note = time.perf_counter(), ""
        try:
            with unpinned():
                note = self.backend.compile(load_case(self.inputs, chosen, self.trained))
        except Exception as error:  # as in `main`
            self.not_compiled[chosen.name] = _text(error)
        return {"seconds": time.perf_counter() - started, "note": note}

    def prepare(self, workload: dict[str, Any], logits: str | None) -> Any:
        """The first call, timed apart; its logits go into a file where one is named."""
        chosen = Workload.from_json(workload)
        if chosen.name in self.not_compiled:
            raise RuntimeError(f"it could not be compiled: {self.not_compiled[chosen.name]}")
        forget_peak_memory()
        call = self.backend.prepare(load_case(self.inputs, chosen, self.trained))
        started = time.perf_counter()
        outcome = call()
        first = time.perf_counter() - started
        if logits:
            np.save(logits, np.asarray(outcome.logits, np.float32))
        self.calls[chosen.name] = call
        return {"first_seconds": first, "loops": outcome.loops, "peak_bytes": peak_memory()}

    def time(self, workload: str, seconds: float) -> Any:
        """Seconds of each call until the time is up, one call at least."""
        call = self.calls[workload]
        times: list[float] = []
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        end = time.perf_counter() + seconds
        first = self.backend.seconds(call)
        if first >= SHORT:
            times.append(first)
        self.energy.joules()
        counted = 0
        while not times or time.perf_counter() < end:
            times.append(self.backend.seconds(call))
            counted += 1
        joules = self.energy.joules()
        return {
            "seconds": times,
            "joules": joules / counted if joules is not None and counted else None,
            "interrupted": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before,
        }

    def release(self) -> Any:
        self.calls.clear()
        gc.collect()
        return {}

    def measure(self, **options: Any) -> Any:
        """For the process that measures the machine's limits (`limits.Limits`)."""
        return self.backend.measure(**options)  # type: ignore[attr-defined]


def _text(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:500] if lines else 'no message'}"


@contextlib.contextmanager
def unpinned() -> Iterator[None]:
    """All cores for the calling thread and those that it starts; afterwards every thread of the process is pinned."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        pin_all_threads(pinned)


def main() -> None:
    """Serve requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, name = sys.argv[1].partition(":")
    worker = Worker(getattr(importlib.import_module(module), name)())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # whatever a backend raises is its result: it goes into the report
            answer = {"error": _text(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
