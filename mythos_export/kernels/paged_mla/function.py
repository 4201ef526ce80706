"""mythos::paged_mla_attention as an ONNX function: scores are taken against the latents themselves."""

from __future__ import annotations

import onnx

from mythos_export.kernels.paged import ROWS, SOFTMAX, paged_function
from mythos_export.kernels.rounded_line.function import rounding

INPUTS = f"q_nope, q_rope, entry, {ROWS}, kv_up"

_SCORES = """
  heads = Shape <start = 1, end = 2> (q_nope)
  nope = Shape <start = 2, end = 3> (q_nope)
  latent = Shape <start = 1, end = 2> (kv_up)
  kv_up_shape = Concat <axis = 0> (heads, minus_one, latent)
  kv_up_heads = Reshape (kv_up, kv_up_shape)
  v_dim_scalar = Constant <value_int: int = @v_head_dim> ()
  v_dim = Reshape (v_dim_scalar, one)
  kv_dim = Add (nope, v_dim)
  w_uk = Slice (kv_up_heads, zero, nope, one)
  w_uv = Slice (kv_up_heads, nope, kv_dim, one)
  q_by_head = Transpose <perm = [1, 0, 2]> (q_nope)
  q_latent_by_head = MatMul (q_by_head, w_uk)
  q_latent = Transpose <perm = [1, 0, 2]> (q_latent_by_head)
  query = Concat <axis = 2> (q_latent, q_rope)
  keys_t = Transpose <perm = [0, 2, 1]> (keys)
  scores = MatMul (query, keys_t)
  mask_nd = Identity (mask)
"""

# Values are read as whole entries, whose rotary part is cut off the result: the keys are not copied by columns.
_READ = """
  read = MatMul (weights, keys)
  read_latent = Slice (read, zero, latent, two)
  latent_by_head = Transpose <perm = [1, 0, 2]> (read_latent)
  w_uv_t = Transpose <perm = [0, 2, 1]> (w_uv)
  out_by_head = MatMul (latent_by_head, w_uv_t)
  heads_out = Transpose <perm = [1, 0, 2]> (out_by_head)
"""


# The parts are the latent and the rotary key.
_PACK = f"""
  latent_width = Shape <start = 1, end = 2> (kv_up)
  entry_width = Shape <start = 1, end = 2> (entry)
  latent_split = Slice (new_line, zero, latent_width, one)
  rope_split = Slice (new_line, latent_width, entry_width, one)
  {rounding("latent")}
  {rounding("rope")}
  integers = Concat <axis = 1> (latent_integer, rope_integer)
  scales = Concat <axis = 1> (latent_scale, rope_scale)
"""
_UNPACK = """
  latent_keys = Slice (key_integers, zero, latent_width, two)
  rope_keys = Slice (key_integers, latent_width, entry_width, two)
  latent_key_scale = Slice (key_scales, zero, one, two)
  rope_key_scale = Slice (key_scales, one, two, two)
  latent_key_values = Mul (latent_keys, latent_key_scale)
  rope_key_values = Mul (rope_keys, rope_key_scale)
  keys_any = Concat <axis = 2> (latent_key_values, rope_key_values)
"""


def function(tensorrt: bool = False, packed: bool = False) -> onnx.FunctionProto:
    """The function body; for TensorRT it does not need the cache with the new entries. `packed`: of int8 pages."""
    attention = _SCORES + SOFTMAX + _READ
    lines = (_PACK, _UNPACK) if packed else None
    return paged_function("paged_mla_attention", INPUTS, attention, "scale, v_head_dim", tensorrt, lines)
