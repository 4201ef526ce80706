"""mythos::gqa_attention as an ONNX function: query heads of one group are stacked, so that keys are never repeated."""

from __future__ import annotations

import onnx

from mythos_export.kernels.text import EPILOGUE, SOFTMAX, attention_prologue, parse_function

INPUTS = "q, past, layer, chunk, positions, past_lengths"

_PROJECT = """
  heads = Shape <start = 2, end = 3> (q)
  head_dim = Shape <start = 3, end = 4> (q)
  kv_heads_scalar = Constant <value_int: int = @kv_heads> ()
  kv_heads_1 = Reshape (kv_heads_scalar, one)
  rows_all = Concat <axis = 1> (stored, chunk)
  split_shape = Concat <axis = 0> (zero, minus_one, two, kv_heads_1, head_dim)
  rows_split = Reshape (rows_all, split_shape)
  rows_kv = Transpose <perm = [2, 0, 3, 1, 4]> (rows_split)
  k = Gather <axis = 0> (rows_kv, zero_scalar)
  v = Gather <axis = 0> (rows_kv, one_scalar)
  k_t = Transpose <perm = [0, 1, 3, 2]> (k)
  q_heads = Transpose <perm = [0, 2, 1, 3]> (q)
  grouped_shape = Concat <axis = 0> (zero, kv_heads_1, minus_one, head_dim)
  q_grouped = Reshape (q_heads, grouped_shape)
  scores_grouped = MatMul (q_grouped, k_t)
  leading = Shape <start = 0, end = 3> (q_heads)
  scores_shape = Concat <axis = 0> (leading, minus_one)
  scores_4d = Reshape (scores_grouped, scores_shape)
"""

_READ = """
  weights_shape = Shape (scores_grouped)
  weights = Reshape (weights_4d, weights_shape)
  read_grouped = MatMul (weights, v)
  heads_shape = Shape (q_heads)
  heads_out = Reshape (read_grouped, heads_shape)
"""


def function(filled: bool = True) -> onnx.FunctionProto:
    """The function body; `filled` slices the past to its longest row, else the whole capacity is read and masked."""
    body = attention_prologue(filled) + _PROJECT + SOFTMAX + _READ + EPILOGUE
    return parse_function("gqa_attention", INPUTS, body, "scale, kv_heads")
