"""Parts of cache lines rounded to int8 in Triton: mythos::rounded_line, and what the attentions over pages append.

To the bit as `mythos_model.cache_lines` and the CPU kernels do it. A division that the compiler made faster would round
otherwise, and an interpreter's bfloat16, too: so the division is the exact one, and a scale is rounded as bits.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.rounded_line.plan import plans
from mythos_export.kernels.triton_run import execute, precision_of
from mythos_model import cache_lines

_LARGEST, _LEAST = tl.constexpr(float(cache_lines.LARGEST)), tl.constexpr(cache_lines.LEAST)
_SIGN, _INFINITY, _NOT_A_NUMBER = tl.constexpr(0x7FFFFFFF), tl.constexpr(0x7F800000), tl.constexpr(0x7FC0)
# Added to what is less than 2 ** 22, it leaves no bits behind the point: so the sum is rounded, to the even one of two
# that are as near.
_TO_INTEGER = tl.constexpr(1.5 * 2.0**23)


@triton.jit
def round_part(x):
    """Of a part x, float32 [width], zeros behind its end: its integers, int8 [width], and the bits of its scale, a
    bfloat16, int32 []."""
    # As bits, sizes are in their order, with infinity and NaN the largest: a maximum of floats may lose a NaN.
    most_bits = tl.max(x.to(tl.int32, bitcast=True) & _SIGN, 0)
    most = most_bits.to(tl.float32, bitcast=True)
    exact = tl.div_rn(most, _LARGEST).to(tl.int32, bitcast=True)
    nearest = (exact + 0x7FFF + ((exact >> 16) & 1)) >> 16
    finite = most_bits < _INFINITY
    stored = tl.where(finite, tl.where(most < _LEAST, 0, nearest), _NOT_A_NUMBER)
    rounds = finite & (stored > 0)
    scale = tl.where(rounds, stored << 16, 0x3F800000).to(tl.float32, bitcast=True)  # else 1
    integers = (tl.div_rn(x, scale) + _TO_INTEGER) - _TO_INTEGER
    return tl.where(rounds, integers, 0.0).to(tl.int8), stored


@triton.jit
def load_scale(at, there):
    """Scales whose two bytes, the low one first, are at `at`, as float32; 0 where `there` does not hold."""
    low = tl.load(at, mask=there, other=0).to(tl.int32) & 255
    high = tl.load(at + 1, mask=there, other=0).to(tl.int32) & 255
    return ((high << 24) | (low << 16)).to(tl.float32, bitcast=True)


def rounded_line(x: Tensor, width: int) -> Tensor:
    """As `mythos_model.cache_lines.rounded_line`: float32 [..., C] with every `width` neighbours rounded to int8 with
    one scale; C is a multiple of it. ValueError for another dtype."""
    precision = precision_of("rounded_line", x)
    if precision != "fp32":
        raise ValueError(f"mythos::rounded_line in Triton takes float32, found {x.dtype}")
    x = x.contiguous()
    out, sizes = x.new_empty(x.shape), {"parts": x.numel() // width}
    if out.numel():
        execute(choose(plans(width), sizes), {"x": x, "out": out}, sizes)
    return out


@triton.jit
def rounded_line_kernel(
    x,  # float32 [parts, WIDTH]
    out,  # float32 [parts, WIDTH]
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (part): what it was rounded to."""
    c = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * WIDTH + c
    integers, stored = round_part(tl.load(x + at, mask=c < WIDTH, other=0.0))
    tl.store(out + at, integers.to(tl.float32) * (stored << 16).to(tl.float32, bitcast=True), mask=c < WIDTH)
