"""mythos::mla_attention, query by query, with keys and values made per head as DeepSeek-V2 (2024) writes them."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array, softmax, visible


def mla_attention(
    q_nope: Array,
    q_rope: Array,
    past: Array,
    layer: Array,
    chunk: Array,
    positions: Array,
    past_lengths: Array,
    kv_up: Array,
    *,
    scale: float,
    v_head_dim: int,
) -> Array:
    """Shapes as in `mythos_model.ops.mla_attention`: q_nope [B, T, H, nope] -> [B, T, H * v]."""
    B, T, H, nope = q_nope.shape
    R = kv_up.shape[1]
    w = kv_up.reshape(H, nope + v_head_dim, R)
    y = np.zeros((B, T, H, v_head_dim), q_nope.dtype)
    for b, t in np.ndindex(B, T):
        if positions[b, t] < 0:
            continue
        rows = visible(past, layer, chunk, positions, past_lengths, b, t)  # [keys, R + P]
        k_nope = np.einsum("sr,hnr->hsn", rows[:, :R], w[:, :nope])
        v = np.einsum("sr,hvr->hsv", rows[:, :R], w[:, nope:])
        scores = np.einsum("hn,hsn->hs", q_nope[b, t], k_nope) + q_rope[b, t] @ rows[:, R:].T
        y[b, t] = np.einsum("hs,hsv->hv", softmax(scores * y.dtype.type(scale)), v)
    return y.reshape(B, T, H * v_head_dim)
