"""mythos::moe, token by token and expert by expert."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array, swiglu


def moe(
    x: Array,
    expert_index: Array,
    expert_weight: Array,
    routed_gate_up: Array,
    routed_down: Array,
    shared_gate_up: Array,
    shared_down: Array,
) -> Array:
    """Shapes as in `mythos_model.ops.moe`: x [..., D] -> [..., D]."""
    y = swiglu(x, shared_gate_up, shared_down)
    for *token, slot in np.ndindex(*expert_index.shape):
        at = tuple(token)
        expert = expert_index[*at, slot]
        y[at] += expert_weight[*at, slot] * swiglu(x[at], routed_gate_up[expert], routed_down[expert])
    return y
