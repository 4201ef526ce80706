"""One backend that takes part: its worker, and what it has said of itself."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mythos_export.bench.resources import starting_on
from mythos_export.bench.workloads import Workload
from mythos_export.workers.near import Worker

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Contestant:
    """One backend in a process of its own.

    Attributes:
        source: "module:Class" of the backend.
        request: what `load` is asked with, the same every time.
        cores: the processor cores that the process may use.
        precision: of its weights; what it has to read, and how far its logits may be off, depend on it.
        rounded: whether its weights are rounded from those of the others, and its name says so.
        name, description, load_seconds: what it says of itself, once loaded.
        compiled: by workload, the seconds that compiling took and a note of how it was done.
        start_seconds: from starting the process to loaded, the imports included.
        first_token_seconds: by workload, from starting the process to the logits, nothing else computed before.
        device: "cpu", or what the backend computes on.
        failed: why it is out; None while it takes part.
    """

    source: str
    request: dict[str, Any]
    cores: tuple[int, ...]
    precision: str = "fp32"
    rounded: bool = False
    name: str = ""
    description: str = ""
    load_seconds: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    compiled: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_token_seconds: dict[str, list[float]] = field(default_factory=dict)
    device: str = "cpu"
    failed: str | None = None
    missing: bool = False
    restarts: bool = True
    energy_missing: str | None = None
    _worker: Worker | None = None
    _began: float = 0.0

    def start(self) -> None:
        """A new process, loaded. Sets `failed` where the machine lacks something; ToolFailed where it breaks."""
        self.stop()
        threads = str(self.request["threads"])
        self._began = time.perf_counter()
        with starting_on(self.cores):
            self._worker = Worker(
                "mythos_export.bench.worker:Runner",
                "its process",
                environment=dict.fromkeys(THREAD_VARIABLES, threads),
                folders=[os.getcwd()],  # "module:Class" may be a user's own
                log=Path(self.request["scratch"]) / f"{self.source.rpartition(':')[2]}.log",
            )
        answer = self.ask("load", source=self.source, **self.request)
        if "missing" in answer:
            self.failed, self.missing = answer["missing"], True
            self.stop()
            return
        self.start_seconds.append(time.perf_counter() - self._began)
        self.load_seconds.append(answer["load_seconds"])
        self.name, self.description = answer["name"], answer["description"]
        if self.rounded:
            self.name += f", {self.precision} weights"
        self.restarts, self.energy_missing = answer["restarts"], answer["energy_missing"]
        self.device = answer["device"]

    def first_token(self, workload: Workload) -> None:
        """Directly after `start`: from there to the logits of this workload, the first thing that the process does."""
        self.ask("prepare", workload=workload.to_json())
        self.first_token_seconds.setdefault(workload.name, []).append(time.perf_counter() - self._began)
        self.ask("release")

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """One request and its answer. Raises ToolFailed."""
        assert self._worker is not None
        return self._worker.ask(do, **values)

    def cpu_seconds(self) -> float:
        """Processor time of its process so far; 0 where it has ended, and is waited for."""
        if self._worker is None or self._worker.ended():
            return 0.0
        times = psutil.Process(self._worker.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """End its process, where there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
