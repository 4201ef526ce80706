"""The stages that an export goes through, each with the same few methods; one file a stage.

stage = Program.open(bundle)
stage.answer(inputs)                  # the graph's outputs, and the loop from inside
stage.values(inputs, iterations)      # every tensor of some iterations, to find the operator that is wrong
"""

from __future__ import annotations

from mythos_export.verify.stages.engine import Engine
from mythos_export.verify.stages.network import Network
from mythos_export.verify.stages.onnxruntime import CpuKernels, FunctionBodies, TensorRTGraph
from mythos_export.verify.stages.program import Program
from mythos_export.verify.stages.reference import Reference
from mythos_export.verify.stages.row_lines import RowLines
from mythos_export.verify.stages.row_loops import RowLoops
from mythos_export.verify.stages.row_networks import RowNetworks
from mythos_export.verify.stages.row_programs import RowPrograms
from mythos_export.verify.stages.rows import RowBodies, RowKernels
from mythos_export.verify.stages.shards import ShardBodies, ShardKernels
from mythos_export.verify.stages.stage import Bundle, Stage

# In the order in which the artifacts are made: the first one that differs is where the fault came in.
STAGES: tuple[type[Stage], ...] = (
    Program,
    FunctionBodies,
    CpuKernels,
    RowBodies,
    RowKernels,
    RowLoops,
    RowLines,
    RowPrograms,
    ShardBodies,
    ShardKernels,
    Reference,
    TensorRTGraph,
    Network,
    RowNetworks,
    Engine,
)

__all__ = ["STAGES", "Bundle", "Stage"]
