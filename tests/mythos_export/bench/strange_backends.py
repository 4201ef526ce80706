"""Backends that go wrong, each in its own way; run in workers by `test_bench.py`."""

from __future__ import annotations

import os
import threading

from mythos_export.bench.backends.backend import Call, Outcome, Setting
from mythos_export.bench.backends.onnxruntime import FunctionBodies
from mythos_export.bench.workloads import Case


class Wrong(FunctionBodies):
    """Computes another model."""

    name = "wrong"

    def prepare(self, case: Case) -> Call:
        call = super().prepare(case)

        def doubled() -> Outcome:
            logits, loops = call()
            return Outcome(2 * logits, loops)

        return doubled


class Picky(FunctionBodies):
    """Cannot prefill, and loses its process when it decodes."""

    name = "picky"

    def prepare(self, case: Case) -> Call:
        if case.workload.kind == "prefill":
            raise ValueError("prefill is not for me")
        return super().prepare(case)

    def seconds(self, call: Call) -> float:
        os._exit(7)


class Uncompiled(FunctionBodies):
    """Compiles, but not for decode; leaves a thread behind, and refuses to run where a thread may leave the cores."""

    name = "uncompiled"
    restarts = False

    def compile(self, case: Case) -> str:
        if case.workload.kind == "decode":
            raise NotImplementedError("no decode yet")
        if os.sched_getaffinity(0) <= self.pinned and len(self.pinned) < (os.cpu_count() or 1):
            raise RuntimeError("compiling got no more cores than running")
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return "by hand"

    def load(self, setting: Setting) -> str:
        self.pinned = os.sched_getaffinity(0)
        return super().load(setting)

    def prepare(self, case: Case) -> Call:
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        if len(threads) < 2 or any(os.sched_getaffinity(thread) != self.pinned for thread in threads):
            raise RuntimeError("a thread is not pinned")
        return super().prepare(case)
