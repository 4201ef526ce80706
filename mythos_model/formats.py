"""How the weights of a matrix are stored: one table, which operators, bodies, references and kernels are made from.

`plain` is the weights themselves, row by row, in the type that is computed in. The others are rounded block by block:
a block is `block` neighbouring inputs of one output row, with one scale, and a weight is `scale * q`, where q is an
integer, from -127 to 127 (int8) or from -8 to 7 (int4). Scales are float16, so that every weight is exact in float32.

Rows are in tiles of `tile`, one beside the other: an input's weights of a tile are neighbours, and a kernel makes a
tile's outputs from one sequential stream, with prefill and decode reading the same layout. Rows and inputs are padded
by zeros to whole tiles and blocks. A byte of several weights holds, from its low bits up, those of row i, of row i +
`lanes`, and so on, each with `zero` added.

    plain   weight        [..., rows, inputs], no scale
    int8    weight int8   [..., tiles, inputs, 16]
    int4    weight uint8  [..., tiles, inputs, 8]: byte i holds q + 8 of row i (low half) and of row i + 8 (high half)
    both    scale float16 [..., tiles, inputs / 32, 16]

`mythos_export/kernels/cpu/formats.h` states the same for C++; a test holds the two together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.errors import ModelError

PLAIN = "plain"

# What an int4 block's largest value may be scaled to instead of the end of the range: a little clipping can cost less
# than coarse steps for all others. The factor with the smallest squared error is taken.
_FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 1.05, 1.1)


class Packed(NamedTuple):
    """A matrix as the module's docstring lays it out; `plain` has no scale."""

    weight: Tensor
    scale: Tensor | None


# Blocks that are rounded together: so few that all steps stay in the cache, and that PyTorch starts no threads for
# them (it does from 32768 elements on). Threads of our own take them in turns.
_TOGETHER = 1000


def _round_int8(blocks: Tensor) -> tuple[Tensor, Tensor]:
    largest = blocks.abs().amax(-1, keepdim=True)
    scale = _usable(largest / 127)
    # Rounded down, the scale would clip the largest weight: by a whole step where it is a subnormal float16.
    scale = torch.where(scale.float() * 127 < largest, (scale.view(torch.int16) + 1).view(torch.float16), scale)
    return (blocks / scale.float()).round_().clamp_(-127, 127), scale


def _round_int4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    best, scale = torch.full_like(largest, torch.inf), torch.ones_like(largest, dtype=torch.float16)
    rounded = torch.empty_like(blocks)
    for factor in _FACTORS:
        tried = _usable(largest * (factor / -8))
        step = tried.float()
        torch.div(blocks, step, out=rounded).round_().clamp_(-8, 7).mul_(step).sub_(blocks)
        error = rounded.square_().sum(-1, keepdim=True)
        better = error < best
        best, scale = torch.where(better, error, best), torch.where(better, tried, scale)
    if not best.isfinite().all():
        return rounded.zero_(), torch.full_like(scale, torch.inf)
    return torch.div(blocks, scale.float(), out=rounded).round_().clamp_(-8, 7), scale


def _usable(scale: Tensor) -> Tensor:
    """As float16; 1 where there is nothing to scale."""
    half = scale.half()
    return torch.where(half == 0, torch.ones_like(half), half)


@dataclass(frozen=True)
class Format:
    """One way to store a matrix.

    Attributes:
        name: as the operators' attribute `format` has it, and `--precision` for those that round.
        bits: of a stored integer.
        element: dtype of the stored weights; None: the type that is computed in.
        scale: dtype of the scales.
        block: inputs that share a scale.
        tile: rows that are beside each other.
        zero: what is stored for q = 0.
        round: [blocks, block] -> (q, scale [blocks, 1]).
    """

    name: str
    bits: int = 0
    element: torch.dtype | None = None
    scale: torch.dtype | None = None
    block: int = 1
    tile: int = 1
    zero: int = 0
    round: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    @property
    def lanes(self) -> int:
        """Stored elements of one input of a tile."""
        return self.tile * self.bits // 8

    def pad_rows(self, weight: Tensor) -> Tensor:
        """[..., rows, inputs] with rows of zeros up to a whole tile."""
        return F.pad(weight, (0, 0, 0, -weight.shape[-2] % self.tile))

    def pack(self, weight: Tensor) -> Packed:
        """Round weights [..., rows, inputs] and lay them out.

        Raises:
            ModelError: a weight is not a number, or too large for a float16 scale.
        """
        if self.round is None or self.element is None or self.scale is None:
            return Packed(weight, None)
        if not weight.is_meta and weight.isnan().any():
            raise ModelError("a weight is not a number")
        padded = F.pad(self.pad_rows(weight.float()), (0, -weight.shape[-1] % self.block))
        blocks = padded.unflatten(-1, (-1, self.block))  # [..., rows, blocks, block]
        q, scale = torch.empty_like(blocks, dtype=torch.int8), blocks.new_empty(blocks.shape[:-1], dtype=self.scale)
        if not weight.is_meta:  # of one without values, the shapes are the answer
            self._round(blocks.view(-1, self.block), q.view(-1, self.block), scale.view(-1, 1))
        if not weight.is_meta and not scale.isfinite().all():
            raise ModelError(
                f"a weight of magnitude {weight.abs().max():.3g} is too large for {self.name}, whose scales are "
                "float16; use --precision fp32"
            )
        tiles = q.flatten(-2).unflatten(-2, (-1, self.tile)).transpose(-1, -2)  # [..., tiles, inputs, tile]
        scales = scale.unflatten(-2, (-1, self.tile)).transpose(-1, -2)
        stored = (tiles + self.zero).to(self.element).split(self.lanes, -1)
        packed = stored[0]
        for place, part in enumerate(stored[1:], 1):
            packed = packed | (part << (place * self.bits))
        return Packed(packed.contiguous(), scales.contiguous())

    def _round(self, blocks: Tensor, q: Tensor, scale: Tensor) -> None:
        """Round [blocks, block] into q, of the same shape, and scale [blocks, 1], on all cores."""

        def few(start: int) -> None:
            assert self.round is not None
            some = slice(start, start + _TOGETHER)
            q[some], scale[some] = self.round(blocks[some])

        starts = range(0, len(blocks), _TOGETHER)
        if len(starts) == 1:
            few(0)
        else:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                deque(pool.map(few, starts), 0)

    def unpack(
        self, weight: Tensor, scale: Tensor | None, rows: int | None = None, inputs: int | None = None
    ) -> Tensor:
        """The weights [..., rows, inputs], rounded ones in float32, exactly; without sizes, with the padding.

        Raises:
            ValueError: a scale is there and none is expected, or the other way round.
        """
        if (scale is None) != (self.scale is None):
            found, expected = ("no scale", "one") if scale is None else ("a scale", "none")
            raise ValueError(f"found {found} beside weights in the format {self.name}, expected {expected}")
        if scale is not None:
            lanes = [weight]
            if self.lanes < self.tile:
                lanes = [weight >> shift & (1 << self.bits) - 1 for shift in range(0, 8, self.bits)]
            q = torch.cat(lanes, -1).float() - self.zero
            blocks = q.unflatten(-2, (-1, self.block)) * scale.float().unsqueeze(-2)  # [..., tiles, blocks, 32, 16]
            weight = blocks.flatten(-3, -2).transpose(-1, -2).flatten(-3, -2)
        return weight[..., :rows, :inputs]


FORMATS = {
    form.name: form
    for form in (
        Format(PLAIN),
        Format("int8", bits=8, element=torch.int8, round=_round_int8, scale=torch.float16, block=32, tile=16),
        Format("int4", bits=4, element=torch.uint8, zero=8, round=_round_int4, scale=torch.float16, block=32, tile=16),
    )
}
ROUNDED = tuple(name for name in FORMATS if name != PLAIN)
"""The formats that lose something."""
