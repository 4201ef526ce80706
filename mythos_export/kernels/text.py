"""Building ONNX function bodies from their textual form."""

from __future__ import annotations

import onnx
import onnx.parser

DOMAIN = "mythos"
PORTABLE_DOMAIN = "mythos.portable"
"""Of calls that the CPU library has no kernels for. A library's operators are looked up by domain and name alone: under
this one nothing is found, and the function body serves."""
DOMAINS = (DOMAIN, PORTABLE_DOMAIN)
VERSION = 1
OPSET = 23  # RMSNormalization and RotaryEmbedding


def parse_function(name: str, inputs: str, body: str, attributes: str = "", outputs: str = "out") -> onnx.FunctionProto:
    """A FunctionProto of the `mythos` domain from ONNX's textual syntax."""
    attributes = f"<{attributes}>" if attributes else ""
    header = f'<opset_import: ["" : {OPSET}], domain: "{DOMAIN}"> {name} {attributes}'
    return onnx.parser.parse_function(f"{header} ({inputs}) => ({outputs}) {{\n{body}\n}}")


# What both attention bodies share. `stored_read` [B, U, C] is the part of the past that is read, `used` [1] its length
# U, and `stored` the same with zeros behind a row's length: a weight of zero does not undo a NaN there.
# ONNX Runtime copies only what is filled. TensorRT needs a shape that does not depend on data: it reads the capacity.
STORED_FILLED = """
  used = ReduceMax <keepdims = 1> (past_lengths)
  slice_starts = Concat <axis = 0> (layer_1, zero)
  layer_end = Add (layer_1, one)
  slice_ends = Concat <axis = 0> (layer_end, used)
  slice_axes = Constant <value_ints = [0, 2]> ()
  stored_4d = Slice (past, slice_starts, slice_ends, slice_axes)
  stored_read = Squeeze (stored_4d, zero)
"""
STORED_CAPACITY = """
  used = Shape <start = 2, end = 3> (past)
  stored_4d = Gather <axis = 0> (past, layer_1)
  stored_read = Squeeze (stored_4d, zero)
"""


def attention_prologue(filled: bool) -> str:
    """Constants, `stored`, `used`, and the additive float32 `mask` [B, 1, T, U+T]."""
    return f"""
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  minus_one = Constant <value_ints = [-1]> ()
  zero_scalar = Constant <value_int = 0> ()
  one_scalar = Constant <value_int = 1> ()
  allow = Constant <value_float = 0.0> ()
  forbid = Constant <value_float = -1.0e30> ()
  layer_1 = Reshape (layer, one)
  {STORED_FILLED if filled else STORED_CAPACITY}
  used_scalar = Squeeze (used, zero)
  slots = Range (zero_scalar, used_scalar, one_scalar)
  lengths_axes = Constant <value_ints = [1, 2]> ()
  lengths_3d = Unsqueeze (past_lengths, lengths_axes)
  slot_filled = Less (slots, lengths_3d)
  past_mask_1 = Where (slot_filled, allow, forbid)
  row_filled = Transpose <perm = [0, 2, 1]> (slot_filled)
  nothing_stored = CastLike (allow, stored_read)
  stored = Where (row_filled, stored_read, nothing_stored)
  batch_tokens = Shape (positions)
  past_mask_shape = Concat <axis = 0> (batch_tokens, used)
  past_mask = Expand (past_mask_1, past_mask_shape)
  key_positions = Unsqueeze (positions, one)
  query_positions = Unsqueeze (positions, two)
  key_is_real = GreaterOrEqual (key_positions, zero_scalar)
  key_is_before = LessOrEqual (key_positions, query_positions)
  key_allowed = And (key_is_real, key_is_before)
  chunk_mask = Where (key_allowed, allow, forbid)
  mask_3d = Concat <axis = 2> (past_mask, chunk_mask)
  mask = Unsqueeze (mask_3d, one)
  scale_value = Constant <value_float: float = @scale> ()
"""


# scores_4d [B, H, T, U+T] in the compute dtype -> weights_4d, softmax taken in float32.
SOFTMAX = """
  scores_wide = Cast <to = 1> (scores_4d)
  scores_scaled = Mul (scores_wide, scale_value)
  scores_masked = Add (scores_scaled, mask)
  weights_wide = Softmax <axis = -1> (scores_masked)
  weights_4d = CastLike (weights_wide, chunk)
"""

# heads_out [B, H, T, v] -> out [B, T, H * v], padding rows zero.
EPILOGUE = """
  rows_4d = Transpose <perm = [0, 2, 1, 3]> (heads_out)
  rows_shape = Constant <value_ints = [0, 0, -1]> ()
  rows = Reshape (rows_4d, rows_shape)
  is_padding = Less (query_positions, zero_scalar)
  nothing = CastLike (allow, rows)
  out = Where (is_padding, nothing, rows)
"""
