"""Target `onnx`: the lowered graph as it is, for ONNX Runtime and every other ONNX runtime with opset 21."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mythos_export.errors import TargetError
from mythos_export.lower import Lowered
from mythos_export.targets.target import Built, Progress, TargetOptions
from mythos_runtime.manifest import VERIFIED


class OnnxTarget:
    """Adds nothing to the graph. It is verified by being run: an export that fails the comparison leaves no bundle."""

    name = "onnx"
    default_precision = "fp32"

    def check(self, options: TargetOptions) -> None:
        if options.precision == "bf16":
            raise TargetError(
                "ONNX Runtime's CPU provider has no bfloat16 kernels for this graph, so the result could not be "
                "checked; use --precision fp32 or fp16"
            )
        unused = [name for name in ("sm", "batch", "tokens", "context", "plugins") if getattr(options, name)]
        if unused:
            flags = ", ".join(f"--{name}" for name in unused)
            raise TargetError(f"{flags} only mean something to --target tensorrt: an ONNX graph takes any size")

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        files = (lowered.path.name, lowered.weights.name)
        return Built(self.name, files, VERIFIED, {}, {"onnxruntime": onnxruntime.__version__})
