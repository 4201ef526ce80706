"""mythos::rotary_embedding, pair by pair."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array


def rotary_embedding(x: Array, cos: Array, sin: Array, heads: int) -> Array:
    """Shapes as in `mythos_model.ops.rotary_embedding`."""
    out, pairs = np.empty(x.shape, x.dtype), cos.shape[-1]
    for row in np.ndindex(*x.shape[:-1]):
        for pair in range(heads * pairs):
            even, odd = x[row][2 * pair], x[row][2 * pair + 1]
            c, s = cos[row][pair % pairs], sin[row][pair % pairs]
            out[row][2 * pair], out[row][2 * pair + 1] = even * c - odd * s, even * s + odd * c
    return out
