"""How the weights of a matrix are stored: one table, which operators, bodies, references and kernels are made from.

`plain` is the weights themselves, row by row, in the type that is computed in. The others are rounded block by block:
a block is `block` neighbouring inputs of one output row, with one scale, and a weight is `scale * q`, where q is an
integer, from -127 to 127 (int8) or from -8 to 7 (int4), or a float8 number. Scales are float16, so that every weight is
exact in float32.

fp8 is float8_e4m3fn (one sign, four exponent, three fraction bits; the largest 448, no infinities; arXiv 2209.05433),
with one scale for a row: numbers with an exponent of their own lose little by a coarse scale. The scale is the row's
largest magnitude / 448, rounded up to float16; q is the number nearest to weight / scale in float32, of two the one
whose last bit is 0, subnormal ones too. NaN (0x7f, 0xff) is never stored.

Rows are stored in tiles of `tile`, four bytes of each row side by side, so that a tile's next few inputs are one cache
line: a kernel makes a tile's outputs from one sequential stream, prefill and decode read the same layout, and so do
products with activations in float32, which take an input of every row, and those with activations in int8, whose
instructions take four inputs of a row. Rows and inputs are padded by zeros to whole tiles and blocks. A byte of two
weights holds that of an input (low half) and that of the fourth input after it (high half), each with `zero` added.

    plain   weight        [..., rows, inputs], no scale
    int8    weight int8   [..., tiles, inputs / 4, 16, 4]
    int4    weight uint8  [..., tiles, inputs / 8, 16, 4]: byte i holds q + 8 of inputs i and i + 4 of the eight
    both    scale float16 [..., tiles, inputs / 32, 16]
    fp8     weight int8   [..., tiles, inputs / 4, 16, 4]: the bits; inputs are padded to a multiple of 32
            scale float16 [..., tiles, 1, 16]

`int8a8` and `int4a8` are stored as `int8` and `int4` are. What is multiplied by them is rounded to int8 before, block
by block (`round_activations`), so that integers are multiplied: several times as fast where a processor multiplies
those.

`mythos_export/kernels/cpu/formats.h` states the same for C++, but for fp8, which has no CPU kernels; a test holds the
two together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.errors import ModelError

PLAIN = "plain"
QUAD = 4  # bytes of a row that lie side by side
_MOST_FP8 = 448.0  # the largest number of float8_e4m3fn
LEAST_ROUNDED = 2.0**-100  # a block whose largest activation is less is rounded to zeros

# What an int4 block's largest value may be scaled to instead of the end of the range: a little clipping can cost less
# than coarse steps for all others. The factor with the smallest squared error is taken.
_FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 1.05, 1.1)


class Packed(NamedTuple):
    """A matrix as the module's docstring lays it out; `plain` has no scale."""

    weight: Tensor
    scale: Tensor | None


# Weights that are rounded together, a block or more: so few that the steps stay near the processor, so many that
# Python's part in them, which only one thread at a time can do, is small (two threads, int4: 51 ns a weight with 1000
# blocks of 32, 13 with 8000).
_TOGETHER = 8000 * 32
_STEP = 32  # inputs; where a scale is a whole row's, rows are padded to a multiple of it


def _round_int8(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = _covering(blocks, 127)
    return (blocks / scale.float()).round_().clamp_(-127, 127), scale


def _round_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = _covering(rows, _MOST_FP8)
    nearest = (rows / scale.float()).clamp_(-_MOST_FP8, _MOST_FP8)  # beyond, PyTorch makes NaN
    return nearest.to(torch.float8_e4m3fn).view(torch.int8), scale


def _covering(blocks: Tensor, most: float) -> Tensor:
    """The float16 scale [blocks, 1] with which the largest weight of each block is at most `most`."""
    largest = blocks.abs().amax(-1, keepdim=True)
    scale = (largest / most).half()
    # Rounded down, the scale would clip the largest weight: by a whole step where it is a subnormal float16.
    above = (scale.view(torch.int16) + 1).view(torch.float16)
    return _usable(torch.where(scale.float() * most < largest, above, scale))


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
        bits: of a stored number.
        element: dtype of the stored weights; None: the type that is computed in.
        scale: dtype of the scales.
        block: inputs that share a scale; 0: all of a row.
        tile: rows that are beside each other.
        zero: what is stored for q = 0.
        round: [blocks, block] -> (q, scale [blocks, 1]).
        number: what a stored byte's bits are, where they are no integer's.
        activations: whether what its weights are multiplied by is rounded, too.
        native: whether the CPU library multiplies by it.
    """

    name: str
    bits: int = 0
    element: torch.dtype | None = None
    scale: torch.dtype | None = None
    block: int = 1
    tile: int = 1
    zero: int = 0
    round: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    number: torch.dtype | None = None
    activations: bool = False
    native: bool = True

    @property
    def group(self) -> int:
        """Inputs of a row that lie side by side, in QUAD bytes."""
        return QUAD * 8 // self.bits

    def padded(self, inputs: int) -> int:
        """How many inputs of a row are stored, padding and all: whole blocks; of a row with one scale a step or more,
        so that the scale is there."""
        step = self.block or _STEP
        return max(-(-inputs // step) * step, 0 if self.block else step)

    def scales(self, inputs: int) -> int:
        """Scales of a row of so many inputs."""
        return self.padded(inputs) // self.block if self.block else 1

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
        inputs = self.padded(weight.shape[-1])
        padded = F.pad(self.pad_rows(weight.float()), (0, inputs - weight.shape[-1]))
        blocks = padded.unflatten(-1, (self.scales(inputs), self.block or inputs))  # [..., rows, blocks, block]
        q, scale = torch.empty_like(blocks, dtype=torch.int8), blocks.new_empty(blocks.shape[:-1], dtype=self.scale)
        if not weight.is_meta:  # of one without values, the shapes are the answer
            self._round(blocks.flatten(0, -2), q.flatten(0, -2), scale.view(-1, 1))
        if not weight.is_meta and not scale.isfinite().all():
            raise ModelError(
                f"a weight of magnitude {weight.abs().max():.3g} is too large for {self.name}, whose scales are "
                "float16; use --precision fp32"
            )
        scales = scale.unflatten(-2, (-1, self.tile)).transpose(-1, -2)
        return Packed(self.lay_out(q.flatten(-2)), scales.contiguous())

    def lay_out(self, q: Tensor) -> Tensor:
        """Integers int8 (or bits) [..., rows, inputs], whole tiles and blocks of them, as they are stored."""
        groups = q.unflatten(-2, (-1, self.tile)).unflatten(-1, (-1, self.group)).transpose(-2, -3)
        stored = (groups + self.zero).to(self.element).split(QUAD, -1)  # of [..., tiles, groups, tile, group]
        packed: Tensor = stored[0]
        for place, part in enumerate(stored[1:], 1):
            packed = packed | (part << (place * self.bits))
        return packed.contiguous()

    def _round(self, blocks: Tensor, q: Tensor, scale: Tensor) -> None:
        """Round [blocks, block] into q, of the same shape, and scale [blocks, 1], on all cores."""
        count = max(_TOGETHER // max(blocks.shape[-1], 1), 1)

        def few(start: int) -> None:
            assert self.round is not None
            some = slice(start, start + count)
            q[some], scale[some] = self.round(blocks[some])

        starts, threads = range(0, len(blocks), count), torch.get_num_threads()
        if len(starts) == 1:
            few(0)
            return
        torch.set_num_threads(1)  # threads of our own take the blocks in turns: one start for all steps, not one a step
        try:
            with ThreadPoolExecutor(threads) as pool:
                deque(pool.map(few, starts), 0)
        finally:
            torch.set_num_threads(threads)

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
            quads = [weight]
            if self.bits < 8:
                quads = [weight >> shift & (1 << self.bits) - 1 for shift in range(0, 8, self.bits)]
            stored = torch.cat(quads, -1).transpose(-2, -3).flatten(-2)  # [..., tiles, tile, inputs]
            q = stored.float() - self.zero if self.number is None else stored.view(self.number).float()
            width = self.block or q.shape[-1]
            blocks = q.unflatten(-1, (-1, width)) * scale.float().transpose(-1, -2).unsqueeze(-1)
            weight = blocks.flatten(-2).flatten(-3, -2)
        return weight[..., :rows, :inputs]


def round_activations(x: Tensor, block: int) -> Tensor:
    """x [..., inputs] as its blocks of `block` inputs are worth in int8: largest / 127 times integers, which are the
    nearest to x * (127 / largest), of two the even one. In x's dtype."""
    inputs = x.shape[-1]
    blocks = F.pad(x, (0, -inputs % block)).unflatten(-1, (-1, block))
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest < LEAST_ROUNDED, 0.0, 127 / largest)
    seen: Tensor = ((blocks * inverse).round() * (largest / 127)).flatten(-2)
    return seen[..., :inputs]


_INT8 = Format("int8", bits=8, element=torch.int8, round=_round_int8, scale=torch.float16, block=32, tile=16)
_FP8 = Format(
    "fp8",
    bits=8,
    element=torch.int8,
    round=_round_fp8,
    scale=torch.float16,
    block=0,
    tile=16,
    number=torch.float8_e4m3fn,
    native=False,
)
_INT4 = Format("int4", bits=4, element=torch.uint8, zero=8, round=_round_int4, scale=torch.float16, block=32, tile=16)
FORMATS = {
    form.name: form
    for form in (
        Format(PLAIN),
        _INT8,
        _INT4,
        replace(_INT8, name="int8a8", activations=True),
        replace(_INT4, name="int4a8", activations=True),
        _FP8,
    )
}
ROUNDED = tuple(name for name in FORMATS if name != PLAIN)
"""The formats that lose something."""
