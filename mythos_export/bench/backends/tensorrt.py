"""The bundle's TensorRT engine. Written, not executed by this project so far: it needs a GPU."""

from __future__ import annotations

from mythos_export.bench.backends.backend import BundleBackend, Call, Setting
from mythos_export.bench.backends.cuda_events import CudaClock, missing_events
from mythos_runtime import read_manifest, tensorrt


class TensorRT(BundleBackend):
    name = "TensorRT"
    backend = "tensorrt"
    device = "cuda"

    def missing(self, setting: Setting) -> str | None:
        found = tensorrt.engines(read_manifest(setting.bundle, verify_hashes=False))
        if not found:
            return "the bundle holds no TensorRT engine: export it with --target tensorrt"
        return tensorrt.missing(found[0].library) or missing_events()

    def load(self, setting: Setting) -> str:
        self._clock = CudaClock()
        return f"{super().load(setting)}, CUDA events"

    def seconds(self, call: Call) -> float:
        return self._clock.seconds(call)
