"""mythos::rotary_embedding in Triton, with the signature and the result of the plain one in `mythos_model.ops`.

In plain PyTorch it is seven launches or nine, twice in an iteration and in every layer around the loop.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.rotary.plan import plans
from mythos_export.kernels.triton_run import execute, precision_of


def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Rotate the pairs of every head; arguments as `mythos_model.ops.rotary_embedding`, the angles in float32.

    x [..., heads * P], cos and sin float32 [..., P/2] -> x's shape and dtype. Rows may lie apart, as a slice's do.
    """
    precision = precision_of("rotary_embedding", x)
    if precision_of("rotary_embedding", cos, sin) != "fp32":
        raise ValueError(f"mythos::rotary_embedding in Triton takes angles in float32, found {cos.dtype}")
    if x.shape[-1] != 2 * heads * cos.shape[-1]:
        raise ValueError(
            f"mythos::rotary_embedding: found {x.shape[-1]} values a row, expected {2 * heads * cos.shape[-1]}, a pair "
            f"for each of {cos.shape[-1]} angles of {heads} heads"
        )
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    sizes = {"rows": len(rows), "stride": rows.stride(0)}
    cos, sin = (angles.expand(*x.shape[:-1], -1).contiguous() for angles in (cos, sin))
    buffers = {"x": rows, "cos": cos, "sin": sin, "out": out}
    execute(choose(plans(heads, cos.shape[-1], precision), sizes), buffers, sizes)
    return out


@triton.jit
def rotary_kernel(
    x,  # [rows, HEADS * 2 PAIRS], rows `stride` apart
    cos,  # float32 [rows, PAIRS]
    sin,  # float32 [rows, PAIRS]
    out,  # [rows, HEADS * 2 PAIRS]
    stride,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (row, block of its pairs)."""
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pair < HEADS * PAIRS
    even = tl.load(x + row * stride + 2 * pair, mask=there, other=0.0).to(tl.float32)
    odd = tl.load(x + row * stride + 2 * pair + 1, mask=there, other=0.0).to(tl.float32)
    angle = row * PAIRS + pair % PAIRS
    c = tl.load(cos + angle, mask=there, other=0.0)
    s = tl.load(sin + angle, mask=there, other=0.0)
    start = out + row * (2 * HEADS * PAIRS) + 2 * pair
    tl.store(start, (even * c - odd * s).to(out.dtype.element_ty), mask=there)
    tl.store(start + 1, (even * s + odd * c).to(out.dtype.element_ty), mask=there)
