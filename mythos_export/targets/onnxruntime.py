"""Target `onnx`: the lowered graph as it is, for every ONNX runtime that knows its opset (`kernels.text.OPSET`)."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mythos_export.lower import Lowered
from mythos_export.targets.target import Built, Progress, TargetOptions
from mythos_export.verify.stages.onnxruntime import FunctionBodies


class OnnxTarget:
    """Adds nothing to the graph."""

    name = "onnx"
    precisions = ("fp32", "fp16", "int8", "int4")
    options: frozenset[str] = frozenset()

    def check(self, options: TargetOptions) -> None:
        """There is nothing more to refuse: an ONNX graph takes any size."""

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        files = (lowered.path.name, lowered.weights.name)
        return Built(self.name, files, (FunctionBodies.name,), {}, {"onnxruntime": onnxruntime.__version__})
