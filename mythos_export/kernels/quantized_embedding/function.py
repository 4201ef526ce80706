"""int8_embedding and int4_embedding as ONNX functions: gather each id's tile, unpack it, pick the row."""

from __future__ import annotations

import onnx

from mythos_export.kernels.blockwise import dequantize
from mythos_export.kernels.text import parse_function
from mythos_model.blockwise import TILE

INPUTS = "ids, weight, scale"


def function(int4: bool) -> onnx.FunctionProto:
    """For int8 or int4 weights."""
    body = f"""
  tile_rows = Constant <value_int = {TILE}> ()
  tile = Div (ids, tile_rows)
  first = Mul (tile, tile_rows)
  lane = Sub (ids, first)
  weight_tiles = Gather <axis = 0> (weight, tile)
  scale_tiles = Gather <axis = 0> (scale, tile)
  {dequantize("tiles", "weight_tiles", "scale_tiles", int4)}
  lanes = Constant <value_ints = [{", ".join(map(str, range(TILE)))}]> ()
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
    return parse_function("int4_embedding" if int4 else "int8_embedding", INPUTS, body, "dim")
