"""The bundle's graph in ONNX Runtime on the CPU, with the portable function bodies or with the native CPU kernels."""

from __future__ import annotations

from mythos_export.bench.backends.backend import BundleBackend, Setting
from mythos_runtime import ort, read_manifest
from mythos_runtime.op_library import why_no_op_library


class FunctionBodies(BundleBackend):
    """What runs wherever ONNX Runtime does, without native code of ours."""

    name = "ONNX Runtime, function bodies"
    backend = "onnxruntime"

    def missing(self, setting: Setting) -> str | None:
        if read_manifest(setting.bundle, verify_hashes=False).file_ending(".onnx", "model.onnx") is None:
            return "the bundle holds no ONNX graph"
        return ort.missing()


class CpuKernels(FunctionBodies):
    name = "ONNX Runtime, CPU kernels"
    op_library = "auto"

    def missing(self, setting: Setting) -> str | None:
        lack = why_no_op_library()
        if lack is not None:
            return f"no library of CPU kernels: {lack}"
        return super().missing(setting)
