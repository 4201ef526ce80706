"""mythos::paged_mla_attention, row by row, with keys and values made per head as DeepSeek-V2 (2024) writes them."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.paged import append, entries
from mythos_export.kernels.reference import Array, softmax


def paged_mla_attention(
    q_nope: Array,
    q_rope: Array,
    entry: Array,
    cache: Array,
    tables: Array,
    span: Array,
    position: Array,
    kv_up: Array,
    *,
    scale: float,
    v_head_dim: int,
) -> tuple[Array, Array]:
    """Shapes as in `mythos_model.paged_ops.paged_mla_attention`: q_nope [r, H, nope] -> [r, H * v] and the cache."""
    r, H, nope = q_nope.shape
    R = kv_up.shape[1]
    w = kv_up.reshape(H, nope + v_head_dim, R)
    parts = (R, q_rope.shape[-1])  # of an int8 line
    cache = append(entry, cache, tables, span, position, parts)
    y = np.zeros((r, H, v_head_dim), q_nope.dtype)
    for row in np.flatnonzero(span >= 0):
        lines = entries(cache, tables[span[row]], position[row], parts, y.dtype.type)  # [keys, R + P]
        k_nope = np.einsum("sr,hnr->hsn", lines[:, :R], w[:, :nope])
        v = np.einsum("sr,hvr->hsv", lines[:, :R], w[:, nope:])
        scores = np.einsum("hn,hsn->hs", q_nope[row], k_nope) + q_rope[row] @ lines[:, R:].T
        y[row] = np.einsum("hs,hsv->hv", softmax(scores * y.dtype.type(scale)), v)
    return y.reshape(r, H * v_head_dim), cache
