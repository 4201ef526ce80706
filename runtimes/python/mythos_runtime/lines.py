"""Lines of int8 caches as pages hold them: `mythos_model.cache_lines`, which says what they are, in numpy.

A line's `parts` are the widths of its parts; a group of the spec has them as `rounded`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LARGEST = 127
_LEAST = 2.0**-100  # a part whose largest magnitude is less is zeros
_NOT_A_NUMBER = 0x7FC0  # the bfloat16


def pack(lines: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """float32 [..., C] as pages hold it, int8 [..., C + 2 * len(parts)]; what is rounded already comes back to the bit.

    The scale of a part that holds an infinity or a NaN is NaN, and its integers are any.
    """
    firsts = np.concatenate([[0], np.cumsum(parts)[:-1]])
    with np.errstate(invalid="ignore"):
        most = np.maximum.reduceat(np.abs(lines, dtype=np.float32), firsts, -1)  # a NaN comes through
        bits = (most / np.float32(_LARGEST)).view(np.uint32)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # of two as near the even one
        stored = np.where(np.isfinite(most), np.where(most < _LEAST, 0, nearest), _NOT_A_NUMBER).astype("<u2")
        scales = _scales(stored, parts)
        integers = np.rint(lines / np.where(scales == 0, np.float32(1), scales))
        integers = np.where(np.isnan(integers), 0, integers).astype(np.int8)
    return np.concatenate([integers, stored.view(np.int8)], -1)


def unpack(packed: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """The values, float32 [..., C], of int8 [..., C + 2 * len(parts)]."""
    C = sum(parts)
    with np.errstate(invalid="ignore"):  # what nobody wrote may be any bytes
        values: np.ndarray = packed[..., :C] * _scales(np.ascontiguousarray(packed[..., C:]).view("<u2"), parts)
    return values


def _scales(stored: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """bfloat16 [..., parts] as bits: float32 [..., C], each of them for every value of its part."""
    scales: np.ndarray = (stored.astype(np.uint32) << 16).view(np.float32)
    return np.repeat(scales, parts, axis=-1)
