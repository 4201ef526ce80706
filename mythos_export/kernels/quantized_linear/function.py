"""int8_linear and int4_linear as ONNX functions: every call makes the whole matrix in float32 and multiplies by it."""

from __future__ import annotations

import onnx

from mythos_export.kernels.blockwise import dequantize
from mythos_export.kernels.text import parse_function

INPUTS = "x, weight, scale"


def function(int4: bool) -> onnx.FunctionProto:
    """For int8 or int4 weights."""
    body = f"""
  {dequantize("tiles", "weight", "scale", int4)}
  by_input = Transpose <perm = [1, 0, 2]> (tiles)
  flat = Constant <value_ints = [0, -1]> ()
  padded = Reshape (by_input, flat)
  zero = Constant <value_ints = [0, 0]> ()
  inputs = Shape <start = -1> (x)
  rows_scalar = Constant <value_int: int = @rows> ()
  one_long = Constant <value_ints = [1]> ()
  rows_1 = Reshape (rows_scalar, one_long)
  sizes = Concat <axis = 0> (inputs, rows_1)
  matrix = Slice (padded, zero, sizes)
  out = MatMul (x, matrix)
"""
    return parse_function("int4_linear" if int4 else "int8_linear", INPUTS, body, "rows")
