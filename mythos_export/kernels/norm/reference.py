"""mythos::rms_norm, row by row."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.reference import Array


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """Shapes as in `mythos_model.ops.rms_norm`."""
    out = np.empty(x.shape, x.dtype if weight is None else weight.dtype)
    for row in np.ndindex(*x.shape[:-1]):
        normed = x[row] / np.sqrt((x[row] ** 2).mean() + eps)
        out[row] = normed if weight is None else normed * weight
    return out
