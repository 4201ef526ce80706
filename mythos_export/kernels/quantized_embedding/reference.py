"""mythos::int8_embedding and int4_embedding, the weights unpacked one by one."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.blockwise import weights
from mythos_export.kernels.reference import Array
from mythos_model.blockwise import TILE


def quantized_embedding(ids: Array, weight: Array, scale: Array, dim: int) -> Array:
    """Shapes as in `mythos_model.quantized_ops.quantized_embedding`: ids [...] -> [..., dim]."""
    return np.asarray(weights(weight, scale, len(weight) * TILE, dim)[ids])
