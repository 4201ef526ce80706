"""The methods that every backend has, and what the bundle's own backends share.

backend = FunctionBodies()
lack = backend.missing(setting)             # None, or why it cannot run here
description = backend.load(setting)         # library, version, device, threads, settings that matter
call = backend.prepare(case)                # everything that is done once
logits, loops = call()                      # what is timed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mythos_export.bench.workloads import Case
from mythos_runtime import Model, Output, load
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.noise import initial_state
from mythos_runtime.session import OpLibrary
from mythos_runtime.spec import LoopSpec


class Outcome(NamedTuple):
    """What a call computed: the last token's logits, float32 [B, V], and the loops that ran (None: not told)."""

    logits: np.ndarray
    loops: int | None


Call = Callable[[], Outcome]


@dataclass(frozen=True)
class Setting:
    """What a backend is given.

    Attributes:
        bundle: the bundle's folder.
        checkpoint: what the bundle was made from, for peers that start from the weights; None where it is not known.
        threads: CPU threads to use; the process is also pinned to as many cores.
        scratch: a folder that lasts as long as the run, for compiled artifacts.
    """

    bundle: Path
    checkpoint: Path | None
    threads: int
    scratch: Path


class Backend:
    """Base of all backends. A class attribute `restarts = False` keeps the process over all rounds: for backends whose
    preparation is a compilation. `device` is what it computes on: only "cpu" is held against the processor's limits."""

    name = ""
    restarts = True
    device = "cpu"

    def missing(self, setting: Setting) -> str | None:
        """What this machine or this bundle lacks for it, in one sentence; None where it lacks nothing."""
        raise NotImplementedError

    def load(self, setting: Setting) -> str:
        """Load, once per process; returns one line for people."""
        raise NotImplementedError

    def prepare(self, case: Case) -> Call:
        """A function of no arguments that runs the case once, the same work each time."""
        raise NotImplementedError

    def compile(self, case: Case) -> str:
        """Do what takes long and lasts for all rounds (by default nothing does); returns a note for the report."""
        return ""

    def seconds(self, call: Call) -> float:
        """The time of one call, by the clock that suits the device."""
        started = time.perf_counter()
        call()
        return time.perf_counter() - started


class BundleBackend(Backend):
    """A bundle in `mythos_runtime`: what a user of the runtime would wait for, its own Python included."""

    backend: str
    provider = "cpu"
    op_library: OpLibrary = None

    def load(self, setting: Setting) -> str:
        self.model: Model = load(
            setting.bundle,
            self.backend,
            setting.threads,
            verify="sizes",
            provider=self.provider,
            op_library=self.op_library,
        )
        return self.model.session.description

    def prepare(self, case: Case) -> Call:
        model, workload = self.model, case.workload

        def prefill() -> Outcome:
            out = model.forward(case.ids, max_loops=workload.depth, halt_threshold=case.threshold)
            return _outcome(out)

        if workload.kind == "prefill":
            return prefill
        cache = model.new_cache(workload.batch, case.capacity, workload.depth)
        cache.write(case.past, np.full(workload.batch, workload.held))

        def decode() -> Outcome:
            out = model.forward(case.ids, cache=cache, halt_threshold=case.threshold)
            cache.truncate(workload.held)
            return _outcome(out)

        return decode


def _outcome(out: Output) -> Outcome:
    return Outcome(out.logits[:, -1], out.loops)


def port_arrays(case: Case, spec: LoopSpec) -> dict[str, np.ndarray]:
    """The model graph's inputs for a case, in the order of its ports; for what calls a graph without our runtime."""
    workload = case.workload
    lengths = np.full(workload.batch, workload.held, np.int64)
    positions = lengths[:, None] + np.arange(workload.tokens)
    values = {
        "ids": case.ids,
        "positions": positions,
        "past_lengths": lengths,
        "max_loops": np.array(case.loops, np.int64),
        "halt_threshold": np.array(halt_threshold(spec, case.threshold), np.float32),
        "early_exit": np.array(workload.depth is None),
    }
    if spec.initial is not None:
        values["initial_state"] = initial_state(spec.initial, positions)
    return spec.ports.by_role(values, case.past)
