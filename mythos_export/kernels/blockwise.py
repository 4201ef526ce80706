"""The layout of block-wise quantised weights (`mythos_model.blockwise`) in numpy and ONNX."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array
from mythos_model.blockwise import BLOCK, TILE, ZERO_INT4


def weights(weight: Array, scale: Array, rows: int, inputs: int) -> Array:
    """The float32 weights [rows, inputs] of one matrix, element by element of the layout.

    Args:
        weight: int8 [tiles, inputs', 16] or, for int4, uint8 [tiles, inputs', 8].
        scale: float16 [tiles, inputs' / 32, 16].
    """
    plain = np.zeros((rows, inputs), np.float32)
    for row in range(rows):
        tile, lane = divmod(row, TILE)
        if weight.dtype == np.uint8:
            byte = weight[tile, :inputs, lane % 8]
            q = (byte >> 4 if lane >= 8 else byte & 15).astype(np.float32) - ZERO_INT4
        else:
            q = weight[tile, :inputs, lane].astype(np.float32)
        plain[row] = q * np.repeat(scale[tile, :, lane].astype(np.float32), BLOCK)[:inputs]
    return plain


def dequantize(result: str, weight: str, scale: str, int4: bool) -> str:
    """Lines for result, float32 [..., tiles, inputs', 16]; `weight` and `scale` as in `weights`, any leading axes."""
    if not int4:
        return f"""
  {result}_scale = Cast <to = 1> ({scale})
  {result} = DequantizeLinear <axis = -2, block_size = {BLOCK}> ({weight}, {result}_scale)
"""
    return f"""
  {result}_scale = Cast <to = 1> ({scale})
  {result}_low_bits = Constant <value = uint8[1] {{15}}> ()
  {result}_half = Constant <value = uint8[1] {{4}}> ()
  {result}_low = BitwiseAnd ({weight}, {result}_low_bits)
  {result}_high = BitShift <direction = "RIGHT"> ({weight}, {result}_half)
  {result}_q = Concat <axis = -1> ({result}_low, {result}_high)
  {result}_shape = Shape ({result}_scale)
  {result}_zero = ConstantOfShape <value = uint8[1] {{{ZERO_INT4}}}> ({result}_shape)
  {result} = DequantizeLinear <axis = -2, block_size = {BLOCK}> ({result}_q, {result}_scale, {result}_zero)
"""
