"""mythos::embedding as an ONNX function: of rounded weights, gather each id's tile, unpack it, pick the row."""

from __future__ import annotations

import onnx

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.formats import dequantize, inputs_of
from mythos_export.kernels.text import parse_function
from mythos_model.formats import FORMATS, PLAIN

INPUTS, SCALES = "ids, weight", "scale"


def function(call: OperatorCall) -> onnx.FunctionProto:
    """The function body."""
    form = call.format
    body = "  out = Gather <axis = 0> (weight, ids)\n" if form == PLAIN else _picked(form)
    return parse_function("embedding", inputs_of(INPUTS, SCALES, form), body, "dim, format")


def _picked(form: str) -> str:
    tile = FORMATS[form].tile
    return f"""
  tile_rows = Constant <value_int = {tile}> ()
  tile = Div (ids, tile_rows)
  first = Mul (tile, tile_rows)
  lane = Sub (ids, first)
  weight_tiles = Gather <axis = 0> (weight, tile)
  scale_tiles = Gather <axis = 0> (scale, tile)
  {dequantize("tiles", "weight_tiles", "scale_tiles", form)}
  lanes = Constant <value_ints = [{", ".join(map(str, range(tile)))}]> ()
  last = Constant <value_ints = [-1]> ()
  lane_1 = Unsqueeze (lane, last)
  is_lane = Equal (lane_1, lanes)
  mask_1 = CastLike (is_lane, tiles)
  before_last = Constant <value_ints = [-2]> ()
  mask = Unsqueeze (mask_1, before_last)
  picked = Mul (tiles, mask)
  row = ReduceSum <keepdims = 0> (picked, last)
  zero_long = Constant <value_ints = [0]> ()
  dim_scalar = Constant <value_int: int = @dim> ()
  one_long = Constant <value_ints = [1]> ()
  dim_1 = Reshape (dim_scalar, one_long)
  out = Slice (row, zero_long, dim_1, last)
"""
