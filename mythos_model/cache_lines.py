"""Lines of a cache in int8: each part of a line (a latent, a rotary key, a head's key or value) has a scale of its own.

    values = rounded_line(x, width)        # what attention reads, in x's dtype
    packed = pack(values, parts)           # what a page holds: int8 [..., C + 2 * len(parts)]
    unpack(packed, parts, dtype)           # the values again, to the bit

A part is rounded symmetrically: its scale is its largest magnitude over 127 as a bfloat16, the nearest, and a value is
the nearest of -127 .. 127, of two as near the even one, times the scale. Two properties carry what is built on it:

- An integer of 8 bits times a scale of 8 bits is exact in float32. So the values are the same in float32 and in
  anything wider, on every processor, in whatever order they are unpacked.
- Rounding what is rounded changes nothing. The scale is off by one part in 256 at most, so a part's largest integer is
  always 127, and 127 times the scale over 127 is the scale. So a line can be packed after it was rounded.

Behind the integers of a line stand the scales of its parts, the two bytes of each, the low one first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = 127
LEAST = 2.0**-100  # a part whose largest magnitude is less is rounded to zeros: its scale stays far from subnormal
SCALE_BYTES = 2

Parts = Sequence[int]
"""The widths of a line's parts, in their order."""


def rounded_line(x: Tensor, width: int) -> Tensor:
    """x [..., C] with every `width` neighbours rounded to int8 with one scale; C is a multiple of it. The dtype stays:
    float32 or wider, for in a narrower one the values are not exact. A part that holds NaN becomes NaN."""
    parts = x.unflatten(-1, (-1, width))
    scale = _scale(parts)
    return (_integers(parts, scale) * scale.to(x.dtype)).flatten(-2)


def rounded_parts(x: Tensor, parts: Parts) -> Tensor:
    """Lines [..., C], each of their parts rounded by itself."""
    return torch.cat([rounded_line(part, part.shape[-1]) for part in x.split(list(parts), -1)], -1)


def pack(x: Tensor, parts: Parts) -> Tensor:
    """Lines [..., C] as pages hold them, int8 [..., C + 2 * len(parts)]; rounds what is not rounded yet."""
    split = x.split(list(parts), -1)
    scales = [_scale(part) for part in split]
    integers = [torch.nan_to_num(_integers(part, scale)) for part, scale in zip(split, scales, strict=True)]
    return torch.cat([torch.cat(integers, -1).to(torch.int8), torch.cat(scales, -1).view(torch.int8)], -1)


def unpack(packed: Tensor, parts: Parts, dtype: torch.dtype) -> Tensor:
    """The values [..., C] of int8 [..., C + 2 * len(parts)]."""
    C = sum(parts)
    scales = packed[..., C:].contiguous().view(torch.bfloat16).to(dtype)  # [..., parts]
    values = packed[..., :C].to(dtype).split(list(parts), -1)
    return torch.cat([part * scales[..., i : i + 1] for i, part in enumerate(values)], -1)


def _scale(part: Tensor) -> Tensor:
    """Of [..., width]: bfloat16 [..., 1]."""
    most = part.abs().amax(-1, keepdim=True)
    return torch.where(most < LEAST, 0.0, most / LARGEST).to(torch.bfloat16)


def _integers(part: Tensor, scale: Tensor) -> Tensor:
    """What the scale is multiplied by, in the part's dtype."""
    return (part / torch.where(scale == 0, 1.0, scale.to(part.dtype))).round()


_op = torch.library.custom_op("mythos::rounded_line", rounded_line, mutates_args=())


@_op.register_fake
def _(x: Tensor, width: int) -> Tensor:
    return torch.empty_like(x)
