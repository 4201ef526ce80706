"""Backends that go wrong, each in its own way; run in workers by `test_bench.py`."""

from __future__ import annotations

import os

from mythos_export.bench.backends.backend import Call, Outcome
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
    """Compiles, but not for decode."""

    name = "uncompiled"
    restarts = False

    def compile(self, case: Case) -> str:
        if case.workload.kind == "decode":
            raise NotImplementedError("no decode yet")
        return "by hand"
