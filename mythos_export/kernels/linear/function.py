"""mythos::linear as an ONNX function: of rounded weights, every call makes the whole matrix in float32."""

from __future__ import annotations

import onnx

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.formats import inputs_of, rounded_activations, unpack
from mythos_export.kernels.text import parse_function
from mythos_model.formats import FORMATS, PLAIN

INPUTS, SCALES = "x, weight", "scale"

_PLAIN = """
  matrix = Transpose <perm = [1, 0]> (weight)
"""
_CUT = """
  origin = Constant <value_ints = [0, 0]> ()
  inputs = Shape <start = -1> (x)
  rows_scalar = Constant <value_int: int = @rows> ()
  one_long = Constant <value_ints = [1]> ()
  rows_1 = Reshape (rows_scalar, one_long)
  sizes = Concat <axis = 0> (inputs, rows_1)
  matrix = Slice (padded, origin, sizes)
"""


def function(call: OperatorCall) -> onnx.FunctionProto:
    """The function body."""
    form = call.format
    matrix = _PLAIN if form == PLAIN else unpack("padded", "weight", "scale", form, 0) + _CUT
    seen, rounding = ("seen", rounded_activations("seen", "x", form)) if FORMATS[form].activations else ("x", "")
    body = f"{matrix}{rounding}\n  out = MatMul ({seen}, matrix)\n"
    return parse_function("linear", inputs_of(INPUTS, SCALES, form), body, "rows, format")
