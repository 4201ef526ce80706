"""mythos::gqa_attention, query by query, with the keys repeated per head (Ainslie et al. 2023)."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array, softmax, visible


def gqa_attention(
    q: Array,
    past: Array,
    layer: Array,
    chunk: Array,
    positions: Array,
    past_lengths: Array,
    *,
    scale: float,
    kv_heads: int,
) -> Array:
    """Shapes as in `mythos_model.ops.gqa_attention`: q [B, T, H, hd] -> [B, T, H * hd]."""
    B, T, H, head = q.shape
    y = np.zeros((B, T, H, head), q.dtype)
    for b, t in np.ndindex(B, T):
        if positions[b, t] < 0:
            continue
        rows = visible(past, layer, chunk, positions, past_lengths, b, t).reshape(-1, 2, kv_heads, head)
        k, v = np.repeat(rows, H // kv_heads, axis=2).transpose(1, 2, 0, 3)  # [H, keys, hd] each
        scores = np.einsum("hd,hsd->hs", q[b, t], k) * y.dtype.type(scale)
        y[b, t] = np.einsum("hs,hsv->hv", softmax(scores), v)
    return y.reshape(B, T, H * head)
