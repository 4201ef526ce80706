"""mythos::moe, token by token and expert by expert, the weights unpacked one by one."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.formats import weights
from mythos_export.kernels.reference import Array, swiglu
from mythos_model.formats import FORMATS, PLAIN


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
    D, tile = x.shape[-1], FORMATS[format].tile

    def unpacked(gate_up: Array, up_scale: Array | None, down: Array, down_scale: Array | None) -> tuple[Array, Array]:
        both = len(gate_up) * tile
        return weights(gate_up, up_scale, format, both, D), weights(down, down_scale, format, D, both // 2)

    none = [None] * len(routed_gate_up)
    up_scales = none if routed_gate_up_scale is None else routed_gate_up_scale
    down_scales = none if routed_down_scale is None else routed_down_scale
    stored = zip(routed_gate_up, up_scales, routed_down, down_scales, strict=True)
    experts = [unpacked(*one) for one in stored]
    y = swiglu(x, *unpacked(shared_gate_up, shared_gate_up_scale, shared_down, shared_down_scale))
    for *token, slot in np.ndindex(*expert_index.shape):
        at = tuple(token)
        y[at] += expert_weight[*at, slot] * swiglu(x[at], *experts[expert_index[*at, slot]])
    return y
