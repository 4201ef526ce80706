"""mythos::paged_gqa_attention as an ONNX function: query heads of one group are stacked."""

from __future__ import annotations

import onnx

from mythos_export.kernels.paged import EPILOGUE, OUTPUTS, PROLOGUE, ROWS, SOFTMAX, TENSORRT_PROLOGUE
from mythos_export.kernels.text import parse_function

INPUTS = f"q, entry, {ROWS}"

_SCORES = """
  kv_heads_scalar = Constant <value_int: int = @kv_heads> ()
  kv_heads_1 = Reshape (kv_heads_scalar, one)
  head_dim = Shape <start = 2, end = 3> (q)
  split_shape = Concat <axis = 0> (zero, zero, two, kv_heads_1, head_dim)
  keys_split = Reshape (keys, split_shape)
  keys_kv = Transpose <perm = [2, 0, 3, 1, 4]> (keys_split)
  k = Gather <axis = 0> (keys_kv, zero_scalar)
  v = Gather <axis = 0> (keys_kv, one_scalar)
  k_t = Transpose <perm = [0, 1, 3, 2]> (k)
  grouped_shape = Concat <axis = 0> (zero, kv_heads_1, minus_one, head_dim)
  q_grouped = Reshape (q, grouped_shape)
  scores = MatMul (q_grouped, k_t)
  mask_nd = Unsqueeze (mask, one)
"""

_READ = """
  heads_out = MatMul (weights, v)
"""


def function(tensorrt: bool = False) -> onnx.FunctionProto:
    """The function body; for TensorRT it does not need the cache with the new entries."""
    body = (TENSORRT_PROLOGUE if tensorrt else PROLOGUE) + _SCORES + SOFTMAX + _READ + EPILOGUE
    return parse_function("paged_gqa_attention", INPUTS, body, "scale, kv_heads", OUTPUTS)
