"""Target `onnx`: the lowered graphs as they are, for every ONNX runtime that knows its opset (`kernels.text.OPSET`)."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mythos_export.lower import Lowered
from mythos_export.progress import Progress
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.rows import RowBodies
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.spec import LoopSpec


def proof_of(spec: LoopSpec) -> tuple[str, ...]:
    """The stages that show that the graphs compute what the model does."""
    return (FunctionBodies.name, RowBodies.name) if set(GRAPHS) <= set(spec.graphs) else (FunctionBodies.name,)


class OnnxTarget:
    """Adds nothing to the graphs."""

    name = "onnx"
    precisions = ("fp32", "fp16", "int8", "int4")
    options: frozenset[str] = frozenset()

    def check(self, options: TargetOptions) -> None:
        """There is nothing more to refuse: an ONNX graph takes any size."""

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        files = tuple(path.name for path in (*lowered.files, *lowered.rows))
        return Built(self.name, files, proof_of(lowered.spec), {}, {"onnxruntime": onnxruntime.__version__})
