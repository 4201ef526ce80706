"""mythos::mla_attention as an ONNX function: the absorbed form, scores taken against the latents themselves.

Past and chunk are multiplied apart, and values are read as whole cache rows whose rotary part is cut off the result:
the cache is never concatenated or sliced by columns, which would copy it once per loop.
"""

from __future__ import annotations

import onnx

from mythos_export.kernels.text import EPILOGUE, SOFTMAX, attention_prologue, parse_function

INPUTS = "q_nope, q_rope, past, layer, chunk, positions, past_lengths, kv_up"

_PROJECT = """
  heads = Shape <start = 2, end = 3> (q_nope)
  nope = Shape <start = 3, end = 4> (q_nope)
  latent = Shape <start = 1, end = 2> (kv_up)
  kv_up_shape = Concat <axis = 0> (heads, minus_one, latent)
  kv_up_heads = Reshape (kv_up, kv_up_shape)
  v_dim_scalar = Constant <value_int: int = @v_head_dim> ()
  v_dim = Reshape (v_dim_scalar, one)
  kv_dim = Add (nope, v_dim)
  w_uk = Slice (kv_up_heads, zero, nope, one)
  w_uv = Slice (kv_up_heads, nope, kv_dim, one)
  w_uv_t = Transpose <perm = [0, 2, 1]> (w_uv)
  q_nope_heads = Transpose <perm = [0, 2, 1, 3]> (q_nope)
  q_rope_heads = Transpose <perm = [0, 2, 1, 3]> (q_rope)
  q_latent = MatMul (q_nope_heads, w_uk)
  query = Concat <axis = 3> (q_latent, q_rope_heads)
  width = Shape <start = 3, end = 4> (query)
  flat_shape = Concat <axis = 0> (zero, minus_one, width)
  query_flat = Reshape (query, flat_shape)
  stored_t = Transpose <perm = [0, 2, 1]> (stored)
  chunk_t = Transpose <perm = [0, 2, 1]> (chunk)
  scores_past = MatMul (query_flat, stored_t)
  scores_chunk = MatMul (query_flat, chunk_t)
  scores_3d = Concat <axis = 2> (scores_past, scores_chunk)
  leading = Shape <start = 0, end = 3> (query)
  scores_shape = Concat <axis = 0> (leading, minus_one)
  scores_4d = Reshape (scores_3d, scores_shape)
"""

_READ = """
  weights_shape = Shape (scores_3d)
  weights = Reshape (weights_4d, weights_shape)
  keys = Shape <start = 2, end = 3> (scores_3d)
  weights_past = Slice (weights, zero, used, two)
  weights_chunk = Slice (weights, used, keys, two)
  read_past = MatMul (weights_past, stored)
  read_chunk = MatMul (weights_chunk, chunk)
  read = Add (read_past, read_chunk)
  read_latent = Slice (read, zero, latent, two)
  latent_shape = Concat <axis = 0> (leading, latent)
  latent_heads = Reshape (read_latent, latent_shape)
  heads_out = MatMul (latent_heads, w_uv_t)
"""


def function(filled: bool = True) -> onnx.FunctionProto:
    """The function body; `filled` slices the past to its longest row, else the whole capacity is read and masked."""
    body = attention_prologue(filled) + _PROJECT + SOFTMAX + _READ + EPILOGUE
    return parse_function("mla_attention", INPUTS, body, "scale, v_head_dim")
