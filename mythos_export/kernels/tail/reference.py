"""mythos::loop_tail, row by row."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.act.reference import act_halting
from mythos_export.kernels.reference import Array


def loop_tail(
    x: Array,
    update: Array,
    lora_down: Array,
    lora_scale: Array,
    lora_up: Array,
    h: Array,
    decay: Array,
    gain: Array,
    encoded: Array,
    out: Array,
    cumulative: Array,
    halted: Array,
    depth: Array,
    weight: Array,
    bias: Array,
    threshold: Array,
) -> tuple[Array, ...]:
    """Shapes as in `mythos_model.ops.loop_tail`."""
    ahead = np.empty_like(h)
    for row in range(len(h)):
        y = x[row] + update[row]
        y = y + (lora_down @ y * lora_scale[row]) @ lora_up
        ahead[row] = decay * h[row] + gain * encoded[row] + y
    return ahead, *act_halting(ahead, out, cumulative, halted, depth, weight, bias, threshold)[1:5]
