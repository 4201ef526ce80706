"""Weights in the formats of `mythos_model.formats` as Triton reads them: what the products over rounded weights share.

A matrix is stored in tiles of 16 rows, four bytes of each beside the other: what a program reads are neighbours. A
block of 32 inputs has a scale for each row, or (fp8) all inputs have. A weight is made exact in float32, then rounded
to the type that it is multiplied in, as the plain operators do; where a row has one scale, what is summed is multiplied
by it instead, at the end.

How a format is stored is three constants: BITS, BLOCK (inputs of a scale; 0: all of a row) and FLOAT8.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mythos_model.formats import FORMATS, QUAD, ROUNDED

TILE = FORMATS["int8"].tile
if any(FORMATS[name].tile != TILE for name in ROUNDED):
    raise AssertionError("the kernels read one layout, which all formats share")

_TILE, _QUAD = tl.constexpr(TILE), tl.constexpr(QUAD)


@triton.jit
def load_weights(
    weight, scale, k, row, there, INPUTS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr, FLOAT8: tl.constexpr
):
    """Weights [len(k), len(row)] in float32: inputs k, rows `row` of a matrix whose inputs are padded to INPUTS; where
    BLOCK is 0 without their scales. `there` says which may be read.

    weight [tiles, INPUTS * BITS / 32, 16, 4], scale float16 [tiles, INPUTS / BLOCK, 16].
    """
    tile = (row // _TILE).to(tl.int64)[None, :]
    lane = (row % _TILE)[None, :]
    group: tl.constexpr = 8 * _QUAD // BITS
    line = tile * (INPUTS // group) + k[:, None] // group
    byte = tl.load(weight + (line * _TILE + lane) * _QUAD + k[:, None] % _QUAD, mask=there, other=0)
    if FLOAT8:
        q = byte.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    elif BITS == 8:
        q = byte.to(tl.float32)
    else:  # a byte holds input i of eight in its low half and input i + 4 in its high one, 8 added to each
        q = ((byte.to(tl.int32) >> (k[:, None] % group // _QUAD * 4)) & 15).to(tl.float32) - 8.0
    if BLOCK > 0:
        by = scale + (tile * (INPUTS // BLOCK) + k[:, None] // BLOCK) * _TILE + lane
        q *= tl.load(by, mask=there, other=0.0).to(tl.float32)
    return q


@triton.jit
def scaled(total, scale, row, there, BLOCK: tl.constexpr):
    """Sums [., len(row)] of products with those weights; where a row has one scale (BLOCK is 0), times it."""
    if BLOCK == 0:
        total *= tl.load(scale + row, mask=there, other=0.0).to(tl.float32)[None, :]
    return total
