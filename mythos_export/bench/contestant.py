"""The near end of a worker: starts it, asks it, and learns when it has died."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mythos_export.bench.errors import BenchError
from mythos_export.bench.resources import starting_on
from mythos_export.bench.workloads import Workload

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ContestantFailed(BenchError):
    """The backend raised, or its process ended; the message is for the report."""

    exit_code = 3


@dataclass
class Contestant:
    """One backend in a process of its own.

    Attributes:
        source: "module:Class" of the backend.
        request: what `load` is asked with, the same every time.
        cores: the processor cores that the process may use.
        precision: of its weights; what it has to read, and how far its logits may be off, hang on it.
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
    _process: subprocess.Popen[str] | None = None
    _began: float = 0.0

    def start(self) -> None:
        """A new process, loaded. Sets `failed` where the machine lacks something; ContestantFailed where it breaks."""
        self.stop()
        threads = str(self.request["threads"])
        environment = {**os.environ, **{name: threads for name in THREAD_VARIABLES}}
        self._began = time.perf_counter()
        with open(self._log, "a") as log, starting_on(self.cores):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mythos_export.bench.worker", self.source],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        answer = self.ask("load", **self.request)
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
        self.ask("prepare", workload=workload.to_json(), logits=None)
        self.first_token_seconds.setdefault(workload.name, []).append(time.perf_counter() - self._began)
        self.ask("release")

    @property
    def _log(self) -> Path:
        return Path(self.request["scratch"]) / f"{self.source.rpartition(':')[2]}.log"

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n") if self._log.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        return f" ({said[-1][:300]})" if said else ""

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """One request and its answer. Raises ContestantFailed."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = process.wait()
            raise ContestantFailed(f"its process ended with {code} while asked to {do}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantFailed(answer["error"])
        return answer

    def cpu_seconds(self) -> float:
        """Processor time of its process so far; 0 where it has ended, and is waited for."""
        if self._process is None or self._process.poll() is not None:
            return 0.0
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """End its process, where there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended by itself: a request was left in the pipe
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
