"""mythos::expert_sum, row by row, in the order of the experts' numbers."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array


def expert_sum(parts: Array, expert_index: Array, expert_weight: Array, shared: Array) -> Array:
    """Shapes as in `mythos_model.products.expert_sum`: parts [..., K, D] -> [..., D]."""
    y = np.zeros((*parts.shape[:-2], parts.shape[-1]), parts.dtype)
    for at in np.ndindex(*expert_index.shape[:-1]):
        for slot in np.argsort(expert_index[at], kind="stable"):
            y[at] += expert_weight[*at, slot] * parts[*at, slot]
    return y + shared if shared.size else y
