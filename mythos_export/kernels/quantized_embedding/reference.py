"""mythos::int8_embedding and int4_embedding, the weights unpacked one by one."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.blockwise import weights
from mythos_export.kernels.reference import Array


def quantized_embedding(ids: Array, weight: Array, scale: Array, dim: int) -> Array:
    """Shapes as in `mythos_model.ops.quantized_embedding`: ids [...] -> [..., dim]."""
    return np.asarray(weights(weight, scale, weight.shape[0] * weight.shape[-1] * (1 + (weight.dtype == np.uint8)), dim)[ids])
