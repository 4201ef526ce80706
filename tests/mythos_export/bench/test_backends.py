"""Every backend says what it lacks, and CUDA events are used as the API wants them."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_bundles import Bundles

from mythos_export.bench.backends import BACKENDS
from mythos_export.bench.backends.backend import Backend, Setting
from mythos_export.bench.backends.cuda_events import CudaClock, missing_events
from mythos_runtime.errors import BackendFailed
from mythos_runtime.op_library import find_op_library


def backend(name: str) -> Backend:
    module, _, cls = BACKENDS[name].partition(":")
    made: Backend = getattr(importlib.import_module(module), cls)()
    return made


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_machine_or_a_bundle_lacks_is_said(name: str, bundles: Bundles, tmp_path: Path) -> None:
    lack = backend(name).missing(Setting(bundles["hops"], None, 1, tmp_path))
    if name in ("bodies", "eager"):
        assert lack is None
    if name == "kernels":
        assert (lack is None) == (find_op_library() is not None)
        assert lack is None or "no library of CPU kernels" in lack
    if name == "tensorrt":
        assert lack == "the bundle holds no TensorRT engine: export it with --target tensorrt"
    if name in ("cuda", "triton") and not torch.cuda.is_available():
        assert lack is not None and ("CUDA" in lack or "GPU" in lack or "Triton is not installed" in lack)


class FakeCuda(types.ModuleType):
    """cuda.bindings.runtime with a clock that a call moves by hand."""

    class cudaError_t:
        cudaSuccess, cudaErrorInvalidValue = 0, 1

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.now, self.events, self.error = 0.0, {}, 0

    def cudaEventCreate(self) -> tuple[int, int]:
        self.events[len(self.events)] = None
        return 0, len(self.events) - 1

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        self.events[event] = self.now
        return (self.error,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        assert self.events[event] is not None
        return (0,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        return 0, self.events[end] - self.events[start]


def test_cuda_events_bracket_the_call_and_their_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", types.ModuleType("cuda.bindings"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    assert missing_events() is None
    clock = CudaClock()

    def call() -> None:
        fake.now += 2.5  # milliseconds

    assert clock.seconds(call) == clock.seconds(call) == 0.0025
    fake.error = 1
    with pytest.raises(BackendFailed, match="CUDA events failed"):
        clock.seconds(call)


def test_without_cuda_python_the_events_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert "pip install cuda-bindings" in (missing_events() or "")
