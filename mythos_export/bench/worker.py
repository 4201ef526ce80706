"""What runs in the process that every backend has to itself (`mythos_export.workers`); `contestant.py` is its keeper.

So none meets the threads, the memory or the crash of another, and each peak of memory is its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mythos_export.bench.backends.backend import Backend, Call, Setting
from mythos_export.bench.resources import EnergyCounter, forget_peak_memory, peak_memory, pin_all_threads
from mythos_export.bench.settling import settle
from mythos_export.bench.workloads import Workload, load_case
from mythos_export.errors import ToolFailed
from mythos_export.progress import Progress

SHORT = 0.05  # a call below this many seconds is run once, unmeasured, at the start of every turn: others ran meanwhile


class Runner:
    """What the worker is asked for, of one backend."""

    def __init__(self, report: Progress) -> None:
        self.backend = Backend()
        self.calls: dict[str, Call] = {}
        self.energy = EnergyCounter()
        self.not_compiled: dict[str, str] = {}

    def load(
        self, source: str, bundle: str, checkpoint: str | None, threads: int, scratch: str, inputs: str, trained: int
    ) -> Any:
        """Import and load the backend `source`, "module:Class"."""
        module, _, name = source.partition(":")
        self.backend = getattr(importlib.import_module(module), name)()
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
        except Exception as error:  # whatever a backend raises is its result: it goes into the report
            self.not_compiled[chosen.name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:500]}"
        return {"seconds": time.perf_counter() - started, "note": note}

    def prepare(self, workload: dict[str, Any]) -> Any:
        """The first call, timed apart, and its logits."""
        chosen = Workload.from_json(workload)
        if chosen.name in self.not_compiled:
            raise ToolFailed(f"it could not be compiled: {self.not_compiled[chosen.name]}")
        forget_peak_memory()
        call = self.backend.prepare(load_case(self.inputs, chosen, self.trained))
        started = time.perf_counter()
        outcome = call()
        first = time.perf_counter() - started
        self.calls[chosen.name] = call
        settle()
        told = {"first_seconds": first, "loops": outcome.loops, "peak_bytes": peak_memory()}
        return told | {"arrays": {"logits": np.asarray(outcome.logits, np.float32)}}

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
        settle()
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
