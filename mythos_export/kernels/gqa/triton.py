"""mythos::gqa_attention in Triton, with the signature and the result of the plain one in `mythos_model.ops`.

Grouped-query attention (https://arxiv.org/abs/2305.13245): the query heads of one kv head read its keys together.
`plan.py` says which kernels run on which grid, `split_attention.py` holds the attention itself.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.gqa.plan import plans
from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.split_attention import merged_norm, merged_sum
from mythos_export.kernels.triton_run import cache_buffers, execute, precision_of


def gqa_attention(
    q: Tensor,
    past: Tensor,
    layer: Tensor,
    chunk: Tensor,
    positions: Tensor,
    past_lengths: Tensor,
    scale: float,
    kv_heads: int,
) -> Tensor:
    """Grouped-query attention over a cache and the new chunk; arguments as `mythos_model.ops.gqa_attention`.

    q [B, T, H, hd], past [L, B, S, 2 * G * hd], layer int64 [], chunk [B, T, 2 * G * hd], positions int64 [B, T]
    (-1: padding), past_lengths int64 [B], kv_heads G -> [B, T, H * hd], zeros where a position is -1; all floats of
    one dtype. `past` is read where it is, as in `mla_attention`.
    """
    precision = precision_of("gqa_attention", q, past, chunk)
    B, T, H, head = q.shape
    out = q.new_empty(B, T, H * head)
    if not out.numel():
        return out
    buffers, sizes = cache_buffers(past, layer, chunk, positions, past_lengths, scale)
    buffers |= {"q": q.contiguous(), "out": out}
    execute(choose(plans(H, kv_heads, head, precision), sizes), buffers, sizes)
    return out


@triton.jit
def combine_kernel(
    part_sum,  # float32 [rows, splits, R]
    part_max,  # float32 [rows, splits]
    part_norm,  # float32 [rows, splits]
    positions,  # int64 [rows / H]
    out,  # [rows, R]
    rows,  # tokens * H
    splits,
    H: tl.constexpr,
    R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """The spans' sums, merged. Program (block of rows)."""
    row = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    r = tl.arange(0, BLOCK_R)
    live = row < rows
    best, inverse = merged_norm(part_max, part_norm, row, live, splits, BLOCK_M)
    total = merged_sum(part_sum, part_max, best, inverse, row, live, splits, r, R, BLOCK_M, BLOCK_R)
    real = tl.load(positions + row // H, mask=live, other=-1) >= 0
    tl.store(
        out + row[:, None] * R + r[None, :],
        tl.where(real[:, None], total, 0.0).to(out.dtype.element_ty),
        mask=live[:, None] & (r < R)[None, :],
    )
