"""mythos::embedding, the weights unpacked lane by lane."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.formats import weights
from mythos_export.kernels.reference import Array
from mythos_model.formats import PLAIN


def embedding(ids: Array, weight: Array, scale: Array | None = None, *, dim: int, format: str = PLAIN) -> Array:
    """Shapes as in `mythos_model.products.embedding`: ids [...] -> [..., dim]."""
    return np.asarray(weights(weight, scale, format, None, dim)[ids])
