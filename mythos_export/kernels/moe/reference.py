"""mythos::moe, token by token and expert by expert, the weights unpacked lane by lane."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.formats import activations, weights
from mythos_export.kernels.reference import Array, swiglu
from mythos_model.formats import PLAIN


def moe(
    x: Array,
    expert_index: Array,
    expert_weight: Array,
    routed_gate_up: Array,
    routed_down: Array,
    shared_gate_up: Array,
    shared_down: Array,
    routed_gate_up_scale: Array | None = None,
    routed_down_scale: Array | None = None,
    shared_gate_up_scale: Array | None = None,
    shared_down_scale: Array | None = None,
    *,
    format: str = PLAIN,
) -> Array:
    """Shapes as in `mythos_model.products.moe`: x [..., D] -> [..., D]."""
    D = x.shape[-1]

    def expert(x: Array, gate_up: Array, down: Array) -> Array:
        return swiglu(activations(x, format), gate_up, down, lambda hidden: activations(hidden, format))

    def unpacked(gate_up: Array, up_scale: Array | None, down: Array, down_scale: Array | None) -> tuple[Array, Array]:
        both = weights(gate_up, up_scale, format, None, D)
        return both, weights(down, down_scale, format, D, both.shape[-2] // 2)

    gate_up, down = unpacked(routed_gate_up, routed_gate_up_scale, routed_down, routed_down_scale)
    y = expert(x, *unpacked(shared_gate_up, shared_gate_up_scale, shared_down, shared_down_scale))
    for *token, slot in np.ndindex(*expert_index.shape):
        at = tuple(token)
        chosen = expert_index[*at, slot]
        y[at] += expert_weight[*at, slot] * expert(x[at], gate_up[chosen], down[chosen])
    return y
