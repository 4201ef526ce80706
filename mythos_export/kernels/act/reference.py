"""mythos::act_halting, position by position."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array


def act_halting(
    h: Array,
    out: Array,
    cumulative: Array,
    halted: Array,
    depth: Array,
    weight: Array,
    bias: Array,
    threshold: Array,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Shapes as in `mythos_model.ops.act_halting`: p, out, cumulative, halted, depth and whether any runs on."""
    p = np.empty_like(cumulative)
    out, cumulative, halted, depth = (array.copy() for array in (out, cumulative, halted, depth))
    limits = np.broadcast_to(threshold, cumulative.shape)
    for position in np.ndindex(*cumulative.shape):
        logit = (h[position] * weight[0]).sum() + bias[0]
        p[position] = 1 / (1 + np.exp(-logit))
        if halted[position]:
            continue
        last = cumulative[position] + p[position] >= limits[position]
        share = max(1 - cumulative[position], 0) if last else p[position]
        out[position] += share * h[position]
        cumulative[position] += p[position]
        depth[position] += 1
        halted[position] = cumulative[position] >= limits[position]
    return p, out, cumulative, halted, depth, np.array(not halted.all())
