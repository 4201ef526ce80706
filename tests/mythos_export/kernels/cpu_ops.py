"""The CPU library under test, and one-node models that call its operators."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mythos_export.kernels.op import OPERATORS

Array = NDArray[Any]
LIBRARY = Path(os.environ.get("MYTHOS_OPS_LIBRARY", Path(__file__).parents[3] / "build/kernels/libmythos_ops.so"))
INPUTS = {name: list(operator.inputs) for name, operator in OPERATORS.items()}
# What the models below say of the tensors; float and of rank 2 where nothing stands here, None is any rank.
TYPES = dict.fromkeys(("expert_index", "layer", "positions", "past_lengths", "ids"), TensorProto.INT64)
TYPES |= dict.fromkeys(("tables", "span", "position"), TensorProto.INT64)
TYPES |= dict.fromkeys(("halted", "halted_next", "running"), TensorProto.BOOL)
TYPES |= dict.fromkeys(("depth", "depth_next"), TensorProto.INT32)
WEIGHT_TYPES = {
    "tensor(int8)": TensorProto.INT8,
    "tensor(uint8)": TensorProto.UINT8,
    "tensor(float16)": TensorProto.FLOAT16,
}
RANKS: dict[str, int | None] = {"layer": 0, "past_lengths": 1, "positions": 2, "chunk": 3}
RANKS |= {"routed_gate_up": 3, "routed_down": 3}
RANKS |= dict.fromkeys(("past", "q_nope", "q_rope", "q"), 4)
PAGED_RANKS = {"q_nope": 3, "q_rope": 3, "q": 3, "out": 2}  # packed rows instead of a batch
RANKS |= {"h": 3, "out": 3, "out_next": 3, "bias": 1, "threshold": None, "running": 0}
RANKS |= {"cache": 3, "cache_next": 3, "span": 1, "position": 1}
RANKS |= dict.fromkeys(("x", "expert_index", "expert_weight"), None)
DOMAINS = [helper.make_opsetid("", 21), helper.make_opsetid("mythos", 1)]


@contextmanager
def isa(name: str | None) -> Iterator[None]:
    """Sessions made inside use this instruction set (None: the best one)."""
    before = os.environ.pop("MYTHOS_OPS_ISA", None)
    if name is not None:
        os.environ["MYTHOS_OPS_ISA"] = name
    try:
        yield
    finally:
        os.environ.pop("MYTHOS_OPS_ISA", None)
        if before is not None:
            os.environ["MYTHOS_OPS_ISA"] = before


def session(model: onnx.ModelProto, threads: int = 1, native: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if native:
        options.register_custom_ops_library(str(LIBRARY))
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def node_model(
    op: str, dtype: type = np.float32, function: onnx.FunctionProto | None = None, **attributes: Any
) -> onnx.ModelProto:
    """One node whose inputs are the graph's, with free dimensions; `function` is its body, if it has one."""
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    ranks = RANKS | (PAGED_RANKS if op.startswith("paged_") else {})
    weights = {name: WEIGHT_TYPES[kind] for name, kind in OPERATORS[op].weights.items()}

    def port(name: str, value: str, rank: int | None) -> onnx.ValueInfoProto:
        shape = None if weights or rank is None else [None] * rank  # quantised operators take any rank
        return helper.make_tensor_value_info(value, (TYPES | weights).get(name, floats), shape)

    inputs = [port(name, name, ranks.get(name, 2)) for name in INPUTS[op]]
    named = {name: f"{name}_result" for name in OPERATORS[op].outputs}
    node = helper.make_node(op, INPUTS[op], list(named.values()), domain="mythos", **attributes)
    outputs = [port(name, value, None if op == "moe" else ranks.get(name, 2)) for name, value in named.items()]
    graph = helper.make_graph([node], op, inputs, outputs)
    bodies = [function] if function is not None else []
    return helper.make_model(graph, functions=bodies, opset_imports=DOMAINS, ir_version=10)


def run(
    op: str, inputs: dict[str, Array], *, threads: int = 1, instructions: str | None = None, **attributes: Any
) -> Array:
    floats = next(iter(inputs.values())).dtype.type
    with isa(instructions):
        made = session(node_model(op, floats, **attributes), threads)
    return np.asarray(made.run(None, inputs)[0])
