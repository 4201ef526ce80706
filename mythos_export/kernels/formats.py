"""The weight formats (`mythos_model.formats`) in numpy, element by element, and as lines of an ONNX body."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array
from mythos_model.formats import FORMATS, LEAST_ROUNDED, PLAIN, Format


def weights(weight: Array, scale: Array | None, format: str, rows: int | None, inputs: int) -> Array:
    """The weights [..., rows, inputs] of matrices, rounded ones in float32, input by input of a group; without rows,
    those of the padding too."""
    if scale is None:
        return weight[..., :rows, :inputs]
    form = FORMATS[format]
    *leading, tiles, groups, tile, quad = weight.shape
    padded = groups * form.group
    plain = np.zeros((*leading, tiles, tile, padded), np.float32)
    for place in range(form.group):
        part, byte = divmod(place, quad)
        stored = weight[..., byte].astype(np.int32)  # [..., tiles, groups, tile]
        if form.bits < 8:
            stored = stored >> part * form.bits & (1 << form.bits) - 1
        values = stored - form.zero if form.number is None else float8(stored)
        plain[..., place :: form.group] = np.swapaxes(values, -1, -2)
    plain *= np.repeat(np.swapaxes(scale.astype(np.float32), -1, -2), form.block or padded, axis=-1)
    return plain.reshape(*leading, tiles * tile, padded)[..., :rows, :inputs]


def float8(bits: Array) -> Array:
    """What bits of float8_e4m3fn (of an int, the low eight) stand for, float32; of NaN, which is never stored, 480."""
    sign, exponent, fraction = bits >> 7 & 1, bits >> 3 & 15, bits & 7
    magnitude = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * np.exp2(exponent - 10.0))
    return np.where(sign == 1, -magnitude, magnitude).astype(np.float32)


def activations(x: Array, format: str) -> Array:
    """x [..., inputs] as products in a format see it, block by block; see `mythos_model.formats.round_activations`."""
    form = FORMATS[format]
    if not form.activations:
        return x
    seen = np.zeros_like(x)
    for first in range(0, x.shape[-1], form.block):
        block = x[..., first : first + form.block]
        largest = np.abs(block).max(-1, keepdims=True)
        nothing = largest < LEAST_ROUNDED
        integers = np.rint(block * np.where(nothing, 0, 127 / np.where(nothing, 1, largest)))
        seen[..., first : first + form.block] = integers * (largest / 127)
    return seen


def rounded_activations(result: str, x: str, format: str) -> str:
    """Lines for result, the same of x [..., inputs] in an ONNX body, for a format that rounds them."""
    form = FORMATS[format]
    return f"""
  {result}_shape = Shape ({x})
  {result}_inputs = Shape <start = -1> ({x})
  {result}_block = Constant <value_ints = [{form.block}]> ()
  {result}_none = Constant <value_ints = [0]> ()
  {result}_one = Constant <value_ints = [1]> ()
  {result}_all = Constant <value_ints = [-1]> ()
  {result}_as_rows = Concat <axis = 0> ({result}_all, {result}_inputs)
  {result}_rows = Reshape ({x}, {result}_as_rows)
  {result}_negative = Neg ({result}_inputs)
  {result}_lacking = Mod ({result}_negative, {result}_block)
  {result}_pads = Concat <axis = 0> ({result}_none, {result}_lacking)
  {result}_padded = Pad ({result}_rows, {result}_pads, , {result}_one)
  {result}_as_blocks = Concat <axis = 0> ({result}_all, {result}_block)
  {result}_blocks = Reshape ({result}_padded, {result}_as_blocks)
  {result}_sizes = Abs ({result}_blocks)
  {result}_largest = ReduceMax <keepdims = 1> ({result}_sizes, {result}_one)
  {result}_least_32 = Constant <value = float[1] {{{LEAST_ROUNDED}}}> ()
  {result}_least = CastLike ({result}_least_32, {result}_largest)
  {result}_nothing = Less ({result}_largest, {result}_least)
  {result}_most_32 = Constant <value = float[1] {{127}}> ()
  {result}_most = CastLike ({result}_most_32, {result}_largest)
  {result}_zero = Sub ({result}_most, {result}_most)
  {result}_one_each = Div ({result}_most, {result}_most)
  {result}_divisor = Where ({result}_nothing, {result}_one_each, {result}_largest)
  {result}_quotient = Div ({result}_most, {result}_divisor)
  {result}_inverse = Where ({result}_nothing, {result}_zero, {result}_quotient)
  {result}_moved = Mul ({result}_blocks, {result}_inverse)
  {result}_integers = Round ({result}_moved)
  {result}_unit = Div ({result}_largest, {result}_most)
  {result}_worth = Mul ({result}_integers, {result}_unit)
  {result}_padded_inputs = Add ({result}_inputs, {result}_lacking)
  {result}_as_padded = Concat <axis = 0> ({result}_all, {result}_padded_inputs)
  {result}_flat = Reshape ({result}_worth, {result}_as_padded)
  {result}_cut = Slice ({result}_flat, {result}_none, {result}_inputs, {result}_one)
  {result} = Reshape <allowzero = 1> ({result}_cut, {result}_shape)
"""


def dequantize(result: str, weight: str, scale: str, format: str) -> str:
    """Lines for result, float32 [..., tiles, inputs', tile], of weights and scales with any leading axes."""
    form = FORMATS[format]
    if form.number is not None:
        return _dequantize_float8(result, weight, scale, form)
    lines, quads, zero = f"\n  {result}_scale = Cast <to = 1> ({scale})\n", weight, ""
    if form.bits < 8:
        lines += f"""
  {result}_low_bits = Constant <value = uint8[1] {{{(1 << form.bits) - 1}}}> ()
  {result}_half = Constant <value = uint8[1] {{{form.bits}}}> ()
  {result}_low = BitwiseAnd ({weight}, {result}_low_bits)
  {result}_high = BitShift <direction = "RIGHT"> ({weight}, {result}_half)
  {result}_quads = Concat <axis = -1> ({result}_low, {result}_high)
  {result}_scale_shape = Shape ({result}_scale)
  {result}_zero = ConstantOfShape <value = uint8[1] {{{form.zero}}}> ({result}_scale_shape)
"""
        quads, zero = f"{result}_quads", f", {result}_zero"
    return (
        lines
        + f"""
  {result}_group = Constant <value_ints = [-1, {form.tile}, {form.group}]> ()
  {result}_by_row = Reshape ({quads}, {result}_group)
  {result}_by_input = Transpose <perm = [0, 2, 1]> ({result}_by_row)
  {result}_leading = Shape <end = -2> ({scale})
  {result}_blocks = Shape <start = -2, end = -1> ({scale})
  {result}_block = Constant <value_ints = [{form.block}]> ()
  {result}_inputs = Mul ({result}_blocks, {result}_block)
  {result}_tile = Constant <value_ints = [{form.tile}]> ()
  {result}_shape = Concat <axis = 0> ({result}_leading, {result}_inputs, {result}_tile)
  {result}_q = Reshape <allowzero = 1> ({result}_by_input, {result}_shape)
  {result} = DequantizeLinear <axis = -2, block_size = {form.block}> ({result}_q, {result}_scale{zero})
"""
    )


def _dequantize_float8(result: str, weight: str, scale: str, form: Format) -> str:
    """By a table of the 256 numbers, for any runtime; bits are int8, and a negative index counts from its end."""
    numbers = ", ".join(f"{number:.9g}" for number in float8(np.arange(256)))
    return f"""
  {result}_scale = Cast <to = 1> ({scale})
  {result}_numbers = Constant <value = float[256] {{{numbers}}}> ()
  {result}_places = Cast <to = 6> ({weight})
  {result}_quads = Gather <axis = 0> ({result}_numbers, {result}_places)
  {result}_group = Constant <value_ints = [-1, {form.tile}, {form.group}]> ()
  {result}_by_row = Reshape ({result}_quads, {result}_group)
  {result}_by_input = Transpose <perm = [0, 2, 1]> ({result}_by_row)
  {result}_leading = Shape <end = -3> ({weight})
  {result}_groups = Shape <start = -3, end = -2> ({weight})
  {result}_of_group = Constant <value_ints = [{form.group}]> ()
  {result}_inputs = Mul ({result}_groups, {result}_of_group)
  {result}_tile = Constant <value_ints = [{form.tile}]> ()
  {result}_shape = Concat <axis = 0> ({result}_leading, {result}_inputs, {result}_tile)
  {result}_q = Reshape <allowzero = 1> ({result}_by_input, {result}_shape)
  {result} = Mul ({result}_q, {result}_scale)
"""


def unpack(result: str, weight: str, scale: str, format: str, leading: int) -> str:
    """Lines for result, float32 [..., inputs', rows'] with the padding, of weights with `leading` axes before; its
    matrix is as a product x . result takes it."""
    before = ", ".join(map(str, range(leading)))
    separate = ", " if leading else ""
    return f"""{dequantize(f"{result}_tiles", weight, scale, format)}
  {result}_by_tile = Transpose <perm = [{before}{separate}{leading + 1}, {leading}, {leading + 2}]> ({result}_tiles)
  {result}_flat = Constant <value_ints = [{"0, " * leading}0, -1]> ()
  {result} = Reshape ({result}_by_tile, {result}_flat)
"""


def inputs_of(names: str, scales: str, format: str) -> str:
    """The inputs of a body: only rounded weights come with scales."""
    return names if format == PLAIN else f"{names}, {scales}"
