"""The weight formats (`mythos_model.formats`) in numpy, element by element, and as lines of an ONNX body."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array
from mythos_model.formats import FORMATS, PLAIN


def weights(weight: Array, scale: Array | None, format: str, rows: int | None, inputs: int) -> Array:
    """The weights [..., rows, inputs] of matrices, rounded ones in float32, lane by lane of the layout; without rows,
    those of the padding too."""
    if scale is None:
        return weight[..., :rows, :inputs]
    form = FORMATS[format]
    *leading, tiles, padded, _ = weight.shape
    plain = np.zeros((*leading, tiles, form.tile, padded), np.float32)
    for lane in range(form.tile):
        part, place = divmod(lane, form.lanes)
        stored = weight[..., place].astype(np.int32)
        if form.lanes < form.tile:
            stored = stored >> part * form.bits & (1 << form.bits) - 1
        scales = np.repeat(scale[..., lane].astype(np.float32), form.block, axis=-1)
        plain[..., lane, :] = (stored - form.zero).astype(np.float32) * scales
    return plain.reshape(*leading, tiles * form.tile, padded)[..., :rows, :inputs]


def dequantize(result: str, weight: str, scale: str, format: str) -> str:
    """Lines for result, float32 [..., tiles, inputs', tile], of weights and scales with any leading axes."""
    form = FORMATS[format]
    lines, q, zero = f"\n  {result}_scale = Cast <to = 1> ({scale})\n", weight, ""
    if form.lanes < form.tile:
        lines += f"""
  {result}_low_bits = Constant <value = uint8[1] {{{(1 << form.bits) - 1}}}> ()
  {result}_half = Constant <value = uint8[1] {{{form.bits}}}> ()
  {result}_low = BitwiseAnd ({weight}, {result}_low_bits)
  {result}_high = BitShift <direction = "RIGHT"> ({weight}, {result}_half)
  {result}_q = Concat <axis = -1> ({result}_low, {result}_high)
  {result}_shape = Shape ({result}_scale)
  {result}_zero = ConstantOfShape <value = uint8[1] {{{form.zero}}}> ({result}_shape)
"""
        q, zero = f"{result}_q", f", {result}_zero"
    return (
        lines
        + f"""
  {result} = DequantizeLinear <axis = -2, block_size = {form.block}> ({q}, {result}_scale{zero})
"""
    )


def unpack(result: str, weight: str, scale: str, format: str, leading: int) -> str:
    """Lines for result, float32 [..., inputs', rows'] with the padding, of weights with `leading` axes before; its
    matrix is as a product x . result takes it."""
    before = ", ".join(map(str, range(leading)))
    separate = ", " if leading else ""
    return f"""{dequantize(f"{result}_tiles", weight, scale, format)}
  {result}_by_input = Transpose <perm = [{before}{separate}{leading + 1}, {leading}, {leading + 2}]> ({result}_tiles)
  {result}_flat = Constant <value_ints = [{"0, " * leading}0, -1]> ()
  {result} = Reshape ({result}_by_input, {result}_flat)
"""


def inputs_of(names: str, scales: str, format: str) -> str:
    """The inputs of a body: only rounded weights come with scales."""
    return names if format == PLAIN else f"{names}, {scales}"
