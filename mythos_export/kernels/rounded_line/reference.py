"""mythos::rounded_line, part by part, and the bytes of rounded lines in pages (`mythos_model.cache_lines`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mythos_export.kernels.reference import Array
from mythos_model.cache_lines import LARGEST, LEAST, SCALE_BYTES


def rounded_line(x: Array, *, width: int) -> Array:
    """Shapes as in `mythos_model.cache_lines.rounded_line`."""
    out = np.empty_like(x)
    for at in np.ndindex(*x.shape[:-1]):
        for first in range(0, x.shape[-1], width):
            part = x[at][first : first + width]
            scale = _scale(part)
            out[at][first : first + width] = _integers(part, scale) * x.dtype.type(scale)
    return out


def pack(lines: Array, parts: Sequence[int]) -> Array:
    """[..., C] -> int8 [..., C + 2 * len(parts)]."""
    out = np.zeros((*lines.shape[:-1], lines.shape[-1] + SCALE_BYTES * len(parts)), np.int8)
    for at in np.ndindex(*lines.shape[:-1]):
        first = 0
        scales: Array = np.zeros(len(parts), np.float32)
        for number, width in enumerate(parts):
            part = lines[at][first : first + width]
            scales[number] = _scale(part)
            out[at][first : first + width] = np.nan_to_num(_integers(part, scales[number])).astype(np.int8)
            first += width
        out[at][first:] = (scales.view(np.uint32) >> 16).astype("<u2").view(np.int8)
    return out


def unpack(packed: Array, parts: Sequence[int], dtype: type) -> Array:
    """int8 [..., C + 2 * len(parts)] -> [..., C]."""
    C = sum(parts)
    bits = np.ascontiguousarray(packed[..., C:]).view("<u2").astype(np.uint32) << 16
    scales: Array = np.repeat(bits.view(np.float32).astype(dtype), parts, axis=-1)
    with np.errstate(invalid="ignore"):  # what nobody wrote may be any bytes
        return np.asarray(packed[..., :C].astype(dtype) * scales)


def _scale(part: Array) -> np.float32:
    """The nearest bfloat16, of two as near the even one; a NaN stays one."""
    most = np.abs(part).max()
    if most < LEAST:
        return np.float32(0)
    if not np.isfinite(most):
        return np.float32(np.nan)
    bits = np.float32(most / part.dtype.type(LARGEST)).view(np.uint32)
    return np.float32(np.asarray((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000, np.uint32).view(np.float32)[()])


def _integers(part: Array, scale: np.float32) -> Array:
    return np.zeros_like(part) if scale == 0 else np.asarray(np.rint(part / part.dtype.type(scale)))
