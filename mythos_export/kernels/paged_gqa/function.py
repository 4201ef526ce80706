"""mythos::paged_gqa_attention as an ONNX function: query heads of one group are stacked."""

from __future__ import annotations

import onnx

from mythos_export.kernels.paged import ROWS, SOFTMAX, paged_function
from mythos_export.kernels.rounded_line.function import rounding

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


# A part is a head's key or value.
_PACK = f"""
  part_width = Shape <start = 2, end = 3> (q)
  part_shape = Concat <axis = 0> (zero, minus_one, part_width)
  part_split = Reshape (new_line, part_shape)
  {rounding("part")}
  integers_shape = Constant <value_ints = [0, -1]> ()
  integers = Reshape (part_integer, integers_shape)
  scales = Reshape (part_scale, integers_shape)
"""
_UNPACK = """
  key_parts_shape = Concat <axis = 0> (zero, zero, minus_one, part_width)
  key_parts = Reshape (key_integers, key_parts_shape)
  key_scales_4d = Unsqueeze (key_scales, minus_one)
  key_values = Mul (key_parts, key_scales_4d)
  key_values_shape = Constant <value_ints = [0, 0, -1]> ()
  keys_any = Reshape (key_values, key_values_shape)
"""


def function(tensorrt: bool = False, packed: bool = False) -> onnx.FunctionProto:
    """The function body; for TensorRT it does not need the cache with the new entries. `packed`: of int8 pages."""
    attention = _SCORES + SOFTMAX + _READ
    lines = (_PACK, _UNPACK) if packed else None
    return paged_function("paged_gqa_attention", INPUTS, attention, "scale, kv_heads", tensorrt, lines)
