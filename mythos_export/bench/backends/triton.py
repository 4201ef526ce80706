"""The captured program in PyTorch on a GPU, the operators computed by the Triton kernels (`mythos_export/kernels`).

Written, not executed by this project so far: it needs a GPU. The kernels themselves run in Triton's interpreter in the
tests.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mythos_export.bench.backends.backend import Call, Setting
from mythos_export.bench.backends.eager import EagerProgram


class TritonEager(EagerProgram):
    name = "PyTorch, Triton kernels"
    provider = "cuda"
    device = "cuda"

    def missing(self, setting: Setting) -> str | None:
        lack = super().missing(setting)
        if lack is None and importlib.util.find_spec("triton") is None:
            lack = "Triton is not installed: pip install 'mythos-export[triton]'"
        if lack is None and not importlib.import_module("torch").cuda.is_available():
            lack = "PyTorch finds no NVIDIA GPU"
        return lack

    def load(self, setting: Setting) -> str:
        self._torch: Any = importlib.import_module("torch")
        return f"{super().load(setting)}, CUDA events"

    def seconds(self, call: Call) -> float:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
