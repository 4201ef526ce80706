"""The bundle's graph in ONNX Runtime's CUDA provider. Written, not executed by this project so far: it needs a GPU."""

from __future__ import annotations

import importlib

from mythos_export.bench.backends.backend import Call, Setting
from mythos_export.bench.backends.cuda_events import CudaClock, missing_events
from mythos_export.bench.backends.onnxruntime import FunctionBodies


class Cuda(FunctionBodies):
    name = "ONNX Runtime, CUDA"
    provider = "cuda"
    device = "cuda"

    def missing(self, setting: Setting) -> str | None:
        lack = super().missing(setting)
        if (
            lack is None
            and "CUDAExecutionProvider" not in importlib.import_module("onnxruntime").get_available_providers()
        ):
            lack = "this ONNX Runtime has no CUDA provider: pip uninstall onnxruntime, pip install onnxruntime-gpu"
        return lack or missing_events()

    def load(self, setting: Setting) -> str:
        self._clock = CudaClock()
        return f"{super().load(setting)}, CUDA events"

    def seconds(self, call: Call) -> float:
        return self._clock.seconds(call)
