"""Block-wise int8 and int4 weights: how they are rounded, and how they lie in memory.

A block is BLOCK neighbouring inputs of one output row, with one scale; a weight is `scale * q`, with q from -127 to 127
(int8) or -8 to 7 (int4). Scales are float16, so that every weight is exact in float32.

Rows lie in tiles of TILE, one beside the other: an input's TILE weights are neighbours, and a kernel makes TILE outputs
from one sequential stream, with prefill and decode reading the same layout. Rows and inputs are padded by zeros.

    int8    weight int8  [..., tiles, inputs, 16]
    int4    weight uint8 [..., tiles, inputs, 8]: byte i holds q + 8 of row i (low half) and of row i + 8 (high half)
    both    scale float16 [..., tiles, inputs / 32, 16]
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.errors import ModelError

BLOCK = 32
TILE = 16
BITS = {"int8": 8, "int4": 4}
ZERO_INT4 = 8  # what int4 stores for q = 0

# What an int4 block's largest value may be scaled to instead of the end of the range: a little clipping can cost less
# than coarse steps for all others. The factor with the smallest squared error is taken.
_FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 1.05, 1.1)


class Blockwise(NamedTuple):
    """Quantised weights as the module's docstring lays them out."""

    weight: Tensor
    scale: Tensor


def pad_rows(weight: Tensor) -> Tensor:
    """[..., rows, inputs] with rows of zeros up to a whole tile."""
    return F.pad(weight, (0, 0, 0, -weight.shape[-2] % TILE))


def quantize(weight: Tensor, form: str) -> Blockwise:
    """Round weights [..., rows, inputs] to `form`, "int8" or "int4".

    Raises:
        ModelError: a weight is not a number, or too large for a float16 scale.
    """
    if weight.isnan().any():
        raise ModelError("a weight is not a number")
    rows, inputs = weight.shape[-2:]
    padded = F.pad(weight.float(), (0, -inputs % BLOCK, 0, -rows % TILE))
    blocks = padded.unflatten(-1, (-1, BLOCK))  # [..., rows, blocks, 32]
    q, scale = _round_int8(blocks) if form == "int8" else _round_int4(blocks)
    if not scale.isfinite().all():
        raise ModelError(
            f"a weight of magnitude {weight.abs().max():.3g} is too large for {form}, whose scales are float16; "
            "use --precision fp32"
        )
    tiles = q.flatten(-2).unflatten(-2, (-1, TILE)).transpose(-1, -2)  # [..., tiles, inputs, 16]
    scales = scale.squeeze(-1).unflatten(-2, (-1, TILE)).transpose(-1, -2).contiguous()
    if form == "int8":
        return Blockwise(tiles.to(torch.int8).contiguous(), scales)
    low, high = (tiles + ZERO_INT4).to(torch.uint8).chunk(2, -1)
    return Blockwise((low | (high << 4)).contiguous(), scales)


def dequantize(weight: Tensor, scale: Tensor, rows: int | None = None, inputs: int | None = None) -> Tensor:
    """The weights [..., rows, inputs] in float32, exactly; without sizes, with the padding."""
    int4 = weight.dtype == torch.uint8
    q = torch.cat([weight & 15, weight >> 4], -1).float() - ZERO_INT4 if int4 else weight.float()
    blocks = q.unflatten(-2, (-1, BLOCK)) * scale.float().unsqueeze(-2)  # [..., tiles, blocks, 32, 16]
    plain = blocks.flatten(-3, -2).transpose(-1, -2).flatten(-3, -2)
    return plain[..., :rows, :inputs]


def _round_int8(blocks: Tensor) -> tuple[Tensor, Tensor]:
    largest = blocks.abs().amax(-1, keepdim=True)
    scale = _usable(largest / 127)
    # Rounded down, the scale would clip the largest weight: by a whole step where it is a subnormal float16.
    scale = torch.where(scale.float() * 127 < largest, (scale.view(torch.int16) + 1).view(torch.float16), scale)
    return (blocks / scale.float()).round().clamp(-127, 127), scale


def _round_int4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    at = blocks.abs().argmax(-1, keepdim=True)
    best = torch.full_like(blocks[..., :1], torch.inf)
    q, scale = torch.zeros_like(blocks), torch.ones_like(best, dtype=torch.float16)
    for factor in _FACTORS:
        tried = _usable(blocks.gather(-1, at) * (factor / -8))
        rounded = (blocks / tried.float()).round().clamp(-8, 7)
        error = (rounded * tried.float() - blocks).square().sum(-1, keepdim=True)
        better = error < best
        best, scale, q = (
            torch.where(better, new, old) for new, old in ((error, best), (tried, scale), (rounded, q))
        )
    return q, scale if best.isfinite().all() else torch.full_like(scale, torch.inf)


def _usable(scale: Tensor) -> Tensor:
    """As float16; 1 where there is nothing to scale."""
    half = scale.half()
    return torch.where(half == 0, torch.ones_like(half), half)
