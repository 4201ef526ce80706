"""mythos::rounded_line as an ONNX function, and how the paged attentions' bodies read and write int8 pages.

ONNX looks at no bits: a scale's bytes are made of its exponent, which is how many powers of two it reaches, and of what
it is of the largest of them. All of it is exact in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mythos_export.kernels.text import parse_function
from mythos_model.cache_lines import LARGEST, LEAST

INPUTS = "x"

_BIAS, _EXPONENTS = 127, 256  # of a bfloat16, whose mantissa is the low 7 of its bits
_NOT_A_NUMBER = 0x7FC0  # one, as bits


def rounding(name: str) -> str:
    """Of NAME_split [..., width], float32: NAME_scale [..., 1], and what it is multiplied by, NAME_integer.

    A maximum may lose a NaN: zero times every value, which is NaN of what is not finite, is added to it. That is not
    below anything, so the scale becomes NaN, and so does the whole part.
    """
    return f"""
  {name}_axis = Constant <value_ints = [-1]> ()
  {name}_least = Constant <value_float = {LEAST!r}> ()
  {name}_largest = Constant <value_float = {LARGEST}.0> ()
  {name}_none = Constant <value_float = 0.0> ()
  {name}_unit = Constant <value_float = 1.0> ()
  {name}_size = Abs ({name}_split)
  {name}_found = ReduceMax <keepdims = 1> ({name}_size, {name}_axis)
  {name}_nothing = Mul ({name}_split, {name}_none)
  {name}_poison = ReduceSum <keepdims = 1> ({name}_nothing, {name}_axis)
  {name}_most = Add ({name}_found, {name}_poison)
  {name}_exact = Div ({name}_most, {name}_largest)
  {name}_stored = Cast <to = 16> ({name}_exact)
  {name}_wide = Cast <to = 1> ({name}_stored)
  {name}_is_small = Less ({name}_most, {name}_least)
  {name}_scale = Where ({name}_is_small, {name}_none, {name}_wide)
  {name}_divisor = Where ({name}_is_small, {name}_unit, {name}_wide)
  {name}_share = Div ({name}_split, {name}_divisor)
  {name}_integer = Round ({name}_share)
"""


def function() -> onnx.FunctionProto:
    """The function body, for any rank."""
    body = f"""
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  minus_one = Constant <value_ints = [-1]> ()
  width_scalar = Constant <value_int: int = @width> ()
  width_1 = Reshape (width_scalar, one)
  whole = Shape (x)
  before = Slice (whole, zero, minus_one)
  split_shape = Concat <axis = 0> (before, minus_one, width_1)
  part_split = Reshape (x, split_shape)
  {rounding("part")}
  rounded = Mul (part_integer, part_scale)
  out = Reshape (rounded, whole)
"""
    return parse_function("rounded_line", INPUTS, body, "width")


def powers() -> onnx.NodeProto:
    """The constant `powers`, float32 [256]: what an exponent of a bfloat16 stands for. Nobody writes a subnormal scale;
    the largest exponent is that of what is no number."""
    values = np.ldexp(1.0, np.arange(_EXPONENTS) - _BIAS)
    values[0], values[-1] = 0, np.nan
    return helper.make_node("Constant", [], ["powers"], value=numpy_helper.from_array(values.astype(np.float32)))


# integers [r, C] and scales [r, n], float32 -> packed_lines, int8 [r, C + 2 * n]. With `powers` and the constants that
# the paged bodies begin with. The largest scale is that of the largest float32, less than 2 ** 122.
PACK = f"""
  last_axis = Constant <value_ints = [-1]> ()
  no_power = Constant <value_float = 0.0> ()
  first_power = Constant <value_float = 1.0> ()
  too_large = Constant <value_float = {2.0**122!r}> ()
  mantissas = Constant <value_float = 128.0> ()
  low_bytes = Constant <value_float = 256.0> ()
  no_number = Constant <value_float = {_NOT_A_NUMBER}.0> ()
  behind_zero = Slice (powers, one, last_axis)
  scales_3d = Unsqueeze (scales, last_axis)
  reaches = GreaterOrEqual (scales_3d, behind_zero)
  reaches_number = Cast <to = 1> (reaches)
  exponent = ReduceSum <keepdims = 0> (reaches_number, last_axis)
  exponent_index = Cast <to = 7> (exponent)
  power_any = Gather (powers, exponent_index)
  has_power = Greater (exponent, no_power)
  power = Where (has_power, power_any, first_power)
  fraction_any = Div (scales, power)
  fraction = Where (has_power, fraction_any, first_power)
  fraction_less = Sub (fraction, first_power)
  mantissa = Mul (fraction_less, mantissas)
  exponent_bits = Mul (exponent, mantissas)
  bits_any = Add (exponent_bits, mantissa)
  is_number = Less (scales, too_large)
  bits = Where (is_number, bits_any, no_number)
  high_any = Div (bits, low_bytes)
  high = Floor (high_any)
  high_bits = Mul (high, low_bytes)
  low_any = Sub (bits, high_bits)
  low_is_less = Less (low_any, mantissas)
  low_turned = Sub (low_any, low_bytes)
  low = Where (low_is_less, low_any, low_turned)
  low_3d = Unsqueeze (low, last_axis)
  high_3d = Unsqueeze (high, last_axis)
  scale_bytes_3d = Concat <axis = 2> (low_3d, high_3d)
  scale_bytes_shape = Constant <value_ints = [0, -1]> ()
  scale_bytes = Reshape (scale_bytes_3d, scale_bytes_shape)
  is_no_integer = IsNaN (integers)
  integers_only = Where (is_no_integer, no_power, integers)
  packed_wide = Concat <axis = 1> (integers_only, scale_bytes)
  packed_lines = Cast <to = 3> (packed_wide)
"""

# packed_keys, int8 [r, S, C + 2 * n], and `entry` [r, C] -> key_integers [r, S, C] and key_scales [r, S, n], float32.
UNPACK = """
  line_width = Shape <start = 1, end = 2> (entry)
  packed_width = Shape <start = 2, end = 3> (packed_keys)
  key_integers_8 = Slice (packed_keys, zero, line_width, two)
  key_integers = Cast <to = 1> (key_integers_8)
  key_bytes_8 = Slice (packed_keys, line_width, packed_width, two)
  key_bytes_signed = Cast <to = 1> (key_bytes_8)
  key_bytes_turned = Add (key_bytes_signed, low_bytes)
  key_byte_is_negative = Less (key_bytes_signed, no_power)
  key_bytes = Where (key_byte_is_negative, key_bytes_turned, key_bytes_signed)
  key_pairs_shape = Constant <value_ints = [0, 0, -1, 2]> ()
  key_pairs = Reshape (key_bytes, key_pairs_shape)
  key_low = Gather <axis = 3> (key_pairs, zero_scalar)
  key_high = Gather <axis = 3> (key_pairs, one_scalar)
  key_high_bits = Mul (key_high, low_bytes)
  key_bits = Add (key_high_bits, key_low)
  key_exponent_any = Div (key_bits, mantissas)
  key_exponent_signed = Floor (key_exponent_any)
  key_exponent_bits = Mul (key_exponent_signed, mantissas)
  key_mantissa = Sub (key_bits, key_exponent_bits)
  key_exponent_turned = Sub (key_exponent_signed, low_bytes)
  key_has_sign = GreaterOrEqual (key_exponent_signed, low_bytes)
  key_exponent = Where (key_has_sign, key_exponent_turned, key_exponent_signed)
  key_exponent_index = Cast <to = 7> (key_exponent)
  key_power = Gather (powers, key_exponent_index)
  key_fraction_less = Div (key_mantissa, mantissas)
  key_fraction = Add (key_fraction_less, first_power)
  key_scales = Mul (key_power, key_fraction)
"""
