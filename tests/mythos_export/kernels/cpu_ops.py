"""The CPU library under test, and one-node models that call its operators."""

from __future__ import annotations

import ctypes
import json
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
from mythos_model.formats import FORMATS, PLAIN

Array = NDArray[Any]
LIBRARY = Path(os.environ.get("MYTHOS_OPS_LIBRARY", Path(__file__).parents[3] / "build/kernels/libmythos_ops.so"))
INPUTS = {name: [i for i in operator.inputs if i not in operator.scales] for name, operator in OPERATORS.items()}
"""What a node with plain weights is given."""
# What the models below say of the tensors; float and of rank 2 where nothing stands here, None is any rank.
TYPES = dict.fromkeys(("expert_index", "layer", "positions", "past_lengths", "ids"), TensorProto.INT64)
TYPES |= dict.fromkeys(("tables", "span", "position"), TensorProto.INT64)
TYPES |= dict.fromkeys(("halted", "halted_next", "running"), TensorProto.BOOL)
TYPES |= dict.fromkeys(("depth", "depth_next"), TensorProto.INT32)
RANKS: dict[str, int | None] = {"layer": 0, "past_lengths": 1, "positions": 2, "chunk": 3}
RANKS |= dict.fromkeys(("past", "q_nope", "q_rope", "q"), 4)
PAGED_RANKS = {"q_nope": 3, "q_rope": 3, "q": 3, "out": 2}  # packed rows instead of a batch
RANKS |= {"h": 3, "out": 3, "out_next": 3, "bias": 1, "threshold": None, "running": 0}
RANKS |= {"cache": 3, "cache_next": 3, "span": 1, "position": 1, "parts": 3, "shared": None}
DOMAINS = [helper.make_opsetid("", 21), helper.make_opsetid("mythos", 1)]


def describe() -> dict[str, Any]:
    """What the library says that it is made of."""
    library = ctypes.CDLL(str(LIBRARY))
    library.mythos_ops_describe.restype = ctypes.c_char_p
    said: dict[str, Any] = json.loads(library.mythos_ops_describe())
    return said


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
    op: str,
    dtype: type = np.float32,
    function: onnx.FunctionProto | None = None,
    *,
    packed: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node whose inputs are the graph's, with free dimensions; `function` is its body, if it has one. `packed`: its
    cache is of int8 pages."""
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    operator, form = OPERATORS[op], FORMATS[attributes.get("format", PLAIN)]
    types, names = TYPES, INPUTS[op]
    if packed:
        types = types | dict.fromkeys(("cache", "cache_next"), TensorProto.INT8)
    if form.element is not None:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(str(form.element).removeprefix("torch.")))
        types = TYPES | dict.fromkeys(operator.weights, element) | dict.fromkeys(operator.scales, TensorProto.FLOAT16)
        names = list(operator.inputs)
    ranks = RANKS | (PAGED_RANKS if op.startswith("paged_") else {})

    def port(name: str, value: str) -> onnx.ValueInfoProto:
        rank = None if operator.weights or op == "rounded_line" else ranks.get(name, 2)  # these take any rank
        shape = None if rank is None else [None] * rank
        return helper.make_tensor_value_info(value, types.get(name, floats), shape)

    named = {name: f"{name}_result" for name in operator.outputs}
    node = helper.make_node(op, names, list(named.values()), domain="mythos", **attributes)
    outputs = [port(name, value) for name, value in named.items()]
    graph = helper.make_graph([node], op, [port(name, name) for name in names], outputs)
    bodies = [function] if function is not None else []
    return helper.make_model(graph, functions=bodies, opset_imports=DOMAINS, ir_version=10)


def run(
    op: str, inputs: dict[str, Array], *, threads: int = 1, instructions: str | None = None, **attributes: Any
) -> Array:
    floats = next(iter(inputs.values())).dtype.type
    with isa(instructions):
        made = session(node_model(op, floats, **attributes), threads)
    return np.asarray(made.run(None, inputs)[0])
