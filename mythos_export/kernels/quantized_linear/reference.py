"""mythos::int8_linear and int4_linear, the weights unpacked one by one."""

from __future__ import annotations

import numpy as np

from mythos_export.kernels.blockwise import weights
from mythos_export.kernels.reference import Array


def quantized_linear(x: Array, weight: Array, scale: Array, rows: int) -> Array:
    """Shapes as in `mythos_model.quantized_ops.quantized_linear`: x [..., K] -> [..., rows]."""
    return np.asarray(x @ weights(weight, scale, rows, x.shape[-1]).T)
