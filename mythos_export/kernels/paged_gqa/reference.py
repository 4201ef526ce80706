"""mythos::paged_gqa_attention, row by row, with the keys repeated per head (Ainslie et al. 2023)."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.paged import append, entries
from mythos_export.kernels.reference import Array, softmax


def paged_gqa_attention(
    q: Array,
    entry: Array,
    cache: Array,
    tables: Array,
    span: Array,
    position: Array,
    *,
    scale: float,
    kv_heads: int,
) -> tuple[Array, Array]:
    """Shapes as in `mythos_model.paged_ops.paged_gqa_attention`: q [r, H, hd] -> [r, H * hd] and the cache."""
    r, H, head = q.shape
    parts = (head,) * (2 * kv_heads)  # of an int8 line
    cache = append(entry, cache, tables, span, position, parts)
    y = np.zeros((r, H, head), q.dtype)
    for row in np.flatnonzero(span >= 0):
        lines = entries(cache, tables[span[row]], position[row], parts, q.dtype.type).reshape(-1, 2, kv_heads, head)
        k, v = np.repeat(lines, H // kv_heads, axis=2).transpose(1, 2, 0, 3)  # [H, keys, hd] each
        scores = np.einsum("hd,hsd->hs", q[row], k) * y.dtype.type(scale)
        y[row] = np.einsum("hs,hsv->hv", softmax(scores), v)
    return y.reshape(r, H * head), cache
