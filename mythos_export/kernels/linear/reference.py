"""mythos::linear, the weights unpacked lane by lane."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.formats import activations, weights
from mythos_export.kernels.reference import Array
from mythos_model.formats import PLAIN


def linear(x: Array, weight: Array, scale: Array | None = None, *, rows: int, format: str = PLAIN) -> Array:
    """Shapes as in `mythos_model.products.linear`: x [..., K] -> [..., rows]."""
    x = activations(x, format)
    return np.asarray(x @ weights(weight, scale, format, rows, x.shape[-1]).T)
