"""mythos::rms_norm in Triton, with the signature and the result of the plain one in `mythos_model.ops`.

In plain PyTorch it is six launches; a block of the loop has four or five norms.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.norm.plan import plans
from mythos_export.kernels.triton_run import execute, precision_of


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Root mean square norm over the last axis; arguments as `mythos_model.ops.rms_norm`.

    x [..., D], which may be wider than weight [D] or None -> [..., D] in the weight's dtype, without one in x's.
    """
    given = precision_of("rms_norm", x)
    narrow = x if weight is None else weight
    precision = precision_of("rms_norm", narrow)
    out = torch.empty(x.shape, dtype=narrow.dtype, device=x.device)
    if not out.numel():
        return out
    D = x.shape[-1]
    (plan,) = plans(D, given, precision, weight is not None)
    unweighted = out if weight is None else weight.contiguous()  # not read
    execute(plan, {"x": x.contiguous(), "weight": unweighted, "out": out}, {"rows": x.numel() // D, "eps": eps})
    return out


@triton.jit
def norm_kernel(
    x,  # [rows, D]
    weight,  # [D]; not read where not WEIGHTED
    out,  # [rows, D]
    eps,
    D: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (row). A row that fits a block is read once."""
    row = tl.program_id(0).to(tl.int64)
    x += row * D
    out += row * D
    squares = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        value = tl.load(x + d, mask=d < D, other=0.0).to(tl.float32)
        squares += value * value
    factor = 1.0 / tl.sqrt_rn(tl.sum(squares, 0) / D + eps)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        value = tl.load(x + d, mask=d < D, other=0.0).to(tl.float32)
        normed = (value * factor).to(out.dtype.element_ty)
        if WEIGHTED:
            normed = normed * tl.load(weight + d, mask=d < D, other=0.0)
        tl.store(out + d, normed, mask=d < D)
