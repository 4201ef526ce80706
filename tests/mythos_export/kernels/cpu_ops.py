"""The CPU library under test, one-node models that call its operators, and float64 references in numpy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]
LIBRARY = Path(os.environ.get("MYTHOS_OPS_LIBRARY", Path(__file__).parents[3] / "build/kernels/libmythos_ops.so"))
INPUTS = {
    "moe": ["x", "expert_index", "expert_weight", "routed_gate_up", "routed_down", "shared_gate_up", "shared_down"],
    "mla_attention": ["q_nope", "q_rope", "past", "layer", "chunk", "positions", "past_lengths", "kv_up"],
    "gqa_attention": ["q", "past", "layer", "chunk", "positions", "past_lengths"],
}
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


def session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def node_model(op: str, dtype: type = np.float32, **attributes: Any) -> onnx.ModelProto:
    """One node whose inputs are the graph's, with free dimensions."""
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    integers = {"expert_index", "layer", "positions", "past_lengths"}
    ranks = {"layer": 0, "past_lengths": 1, "positions": 2, "chunk": 3, "routed_gate_up": 3, "routed_down": 3}
    ranks |= dict.fromkeys(("past", "q_nope", "q_rope", "q"), 4)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64 if n in integers else floats, [None] * ranks.get(n, 2))
        for n in INPUTS[op]
    ]
    node = helper.make_node(op, INPUTS[op], ["y"], domain="mythos", **attributes)
    y = helper.make_tensor_value_info("y", floats, [None] * (2 if op == "moe" else 3))
    return helper.make_model(helper.make_graph([node], op, inputs, [y]), opset_imports=DOMAINS, ir_version=10)


def run(
    op: str, inputs: dict[str, Array], *, threads: int = 1, instructions: str | None = None, **attributes: Any
) -> Array:
    floats = next(iter(inputs.values())).dtype.type
    with isa(instructions):
        made = session(node_model(op, floats, **attributes), threads)
    return np.asarray(made.run(None, inputs)[0])


def wide(inputs: dict[str, Array]) -> dict[str, Array]:
    return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}


def swiglu(x: Array, gate_up: Array, down: Array) -> Array:
    gate, up = np.split(x @ gate_up.T, 2, axis=-1)
    return (gate / (1 + np.exp(-gate)) * up) @ down.T


def moe(x: Array, expert_index: Array, expert_weight: Array, routed_gate_up: Array, routed_down: Array,
        shared_gate_up: Array, shared_down: Array) -> Array:  # fmt: skip
    y = swiglu(x, shared_gate_up, shared_down)
    for i, k in np.ndindex(*expert_index.shape):
        e = expert_index[i, k]
        y[i] += expert_weight[i, k] * swiglu(x[i], routed_gate_up[e], routed_down[e])
    return y


def visible(past: Array, layer: Array, chunk: Array, positions: Array, past_lengths: Array, b: int, t: int) -> Array:
    """The cache rows that token t of row b may attend to [keys, C]."""
    old = past[int(layer), b, : past_lengths[b]] if past.shape[2] else chunk[b, :0]
    seen = (positions[b] >= 0) & (positions[b] <= positions[b, t])
    return np.concatenate([old, chunk[b][seen]])


def softmax(scores: Array) -> Array:
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(p / p.sum(-1, keepdims=True))


def mla_attention(q_nope: Array, q_rope: Array, past: Array, layer: Array, chunk: Array, positions: Array,
                  past_lengths: Array, kv_up: Array, *, scale: float, v_head_dim: int) -> Array:  # fmt: skip
    B, T, H, nope = q_nope.shape
    R = kv_up.shape[1]
    w = kv_up.reshape(H, nope + v_head_dim, R)
    y = np.zeros((B, T, H, v_head_dim))
    for b, t in np.ndindex(B, T):
        if positions[b, t] < 0:
            continue
        rows = visible(past, layer, chunk, positions, past_lengths, b, t)
        k_nope = np.einsum("sr,hnr->hsn", rows[:, :R], w[:, :nope])
        v = np.einsum("sr,hvr->hsv", rows[:, :R], w[:, nope:])
        scores = np.einsum("hn,hsn->hs", q_nope[b, t], k_nope) + q_rope[b, t] @ rows[:, R:].T
        y[b, t] = np.einsum("hs,hsv->hv", softmax(scores * scale), v)
    return y.reshape(B, T, H * v_head_dim)


def gqa_attention(q: Array, past: Array, layer: Array, chunk: Array, positions: Array, past_lengths: Array, *,
                  scale: float, kv_heads: int) -> Array:  # fmt: skip
    B, T, H, head = q.shape
    y = np.zeros((B, T, H, head))
    for b, t in np.ndindex(B, T):
        if positions[b, t] < 0:
            continue
        rows = visible(past, layer, chunk, positions, past_lengths, b, t).reshape(-1, 2, kv_heads, head)
        k, v = np.repeat(rows, H // kv_heads, axis=2).transpose(1, 2, 0, 3)  # [H, keys, head]
        y[b, t] = np.einsum("hs,hsv->hv", softmax(np.einsum("hd,hsd->hs", q[b, t], k) * scale), v)
    return y.reshape(B, T, H * head)


REFERENCES: dict[str, Callable[..., Array]] = {
    "moe": moe,
    "mla_attention": mla_attention,
    "gqa_attention": gqa_attention,
}


def distance(op: str, inputs: dict[str, Array], got: Array, **attributes: Any) -> float:
    """The relative L2 distance from the reference in float64 of the same inputs; an empty result is right.

    Results are of order 1. Where few elements happen to cancel to less than 0.1 the distance is relative to 0.1, for
    the rounding errors are those of the terms.
    """
    expected = REFERENCES[op](**wide(inputs), **attributes)
    assert got.shape == expected.shape
    size = max(float(np.linalg.norm(expected)), 0.1 * got.size**0.5)
    return float(np.linalg.norm(got - expected)) / size if got.size else 0.0
