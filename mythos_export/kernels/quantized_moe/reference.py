"""mythos::int8_moe and int4_moe: the weights unpacked one by one, then `moe`."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.blockwise import weights
from mythos_export.kernels.moe.reference import moe
from mythos_export.kernels.reference import Array
from mythos_model.blockwise import TILE


def quantized_moe(
    x: Array,
    expert_index: Array,
    expert_weight: Array,
    routed_gate_up: Array,
    routed_gate_up_scale: Array,
    routed_down: Array,
    routed_down_scale: Array,
    shared_gate_up: Array,
    shared_gate_up_scale: Array,
    shared_down: Array,
    shared_down_scale: Array,
) -> Array:
    """Shapes as in `mythos_model.quantized_ops.quantized_moe`: x [..., D] -> [..., D]."""
    D = x.shape[-1]

    def gate_up(weight: Array, scale: Array) -> Array:
        return weights(weight, scale, len(weight) * TILE, D)

    def down(weight: Array, scale: Array, both: Array) -> Array:
        return weights(weight, scale, D, len(both) * TILE // 2)

    return moe(
        x,
        expert_index,
        expert_weight,
        np.stack([gate_up(*pair) for pair in zip(routed_gate_up, routed_gate_up_scale, strict=True)]),
        np.stack([down(*three) for three in zip(routed_down, routed_down_scale, routed_gate_up, strict=True)]),
        gate_up(shared_gate_up, shared_gate_up_scale),
        down(shared_down, shared_down_scale, shared_gate_up),
    )
