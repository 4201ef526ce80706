"""Target `onnx`: the lowered graphs as they are, for every ONNX runtime that knows its opset (`kernels.text.OPSET`)."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from mythos_export.errors import TargetError
from mythos_export.lower import Lowered
from mythos_export.progress import Progress
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.rows import RowBodies
from mythos_export.verify.stages.shards import ShardBodies
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.spec import LoopSpec


def proof_of(spec: LoopSpec) -> tuple[str, ...]:
    """The stages that show that the graphs compute what the model does."""
    return (FunctionBodies.name, RowBodies.name) if set(GRAPHS) <= set(spec.graphs) else (FunctionBodies.name,)


class OnnxTarget:
    """Adds nothing to the graphs."""

    name = "onnx"
    precisions = ("fp32", "fp16", "int8", "int4", "int8a8", "int4a8", "auto")
    options = frozenset({"expert_shards", "int8_cache"})

    def check(self, options: TargetOptions) -> None:
        """An ONNX graph takes any size."""
        if options.expert_shards is not None and options.precision == "fp16":
            raise TargetError("--expert-shards goes with fp32, int8 and int4, whose rows are float32, not with fp16")

    def check_model(self, spec: LoopSpec, options: TargetOptions) -> None:
        """Every model is taken."""

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        files = tuple(path.name for path in (*lowered.files, *lowered.rows))
        proof = proof_of(lowered.spec) + ((ShardBodies.name,) if options.expert_shards else ())
        return Built(self.name, files, proof, {}, {"onnxruntime": onnxruntime.__version__})
