"""mythos::mla_attention in Triton, with the signature and the result of the plain one in `mythos_model.ops`.

Absorbed form of multi-head latent attention (DeepSeek-V2, https://arxiv.org/abs/2405.04434): the key up-projection is
moved to the query, the value up-projection behind the attention, so that scores and sums are taken over the cached
latents themselves. Any number of new tokens; `plan.py` says which kernels run on which grid, `split_attention.py`
holds the attention itself.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.mla.plan import plans
from mythos_export.kernels.split_attention import merged_norm, merged_sum
from mythos_export.kernels.triton_run import cache_buffers, check_weights, execute, precision_of


def mla_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    past: Tensor,
    layer: Tensor,
    chunk: Tensor,
    positions: Tensor,
    past_lengths: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> Tensor:
    """Multi-head latent attention over a latent cache and the new chunk; arguments as `mythos_model.ops.mla_attention`.

    q_nope [B, T, H, nope], q_rope [B, T, H, P], past [L, B, S, R + P], layer int64 [], chunk [B, T, R + P], positions
    int64 [B, T] (-1: padding), past_lengths int64 [B], kv_up [H * (nope + v), R] -> [B, T, H * v], zeros where a
    position is -1; all floats of one dtype. `past` may be a view of a larger buffer along L, B and S; it is read
    where it is, no further than past_lengths, which must not exceed S.
    """
    precision = precision_of("mla_attention", q_nope, q_rope, past, chunk, kv_up)
    check_weights("mla_attention", kv_up=kv_up)
    B, T, H, nope = q_nope.shape
    R = kv_up.shape[1]
    out = q_nope.new_empty(B, T, H * v_head_dim)
    if not out.numel():
        return out
    buffers, sizes = cache_buffers(past, layer, chunk, positions, past_lengths, scale)
    buffers |= {"q_nope": q_nope.contiguous(), "q_rope": q_rope.contiguous(), "kv_up": kv_up, "out": out}
    plan = choose(plans(H, nope, q_rope.shape[-1], v_head_dim, R, precision), sizes)
    execute(plan, buffers, sizes)
    return out


@triton.jit
def absorb_kernel(
    q_nope,  # [tokens, H, NOPE]
    kv_up,  # [H, NOPE + V, R]
    q_latent,  # [tokens, H, R]
    tokens,
    H: tl.constexpr,
    NOPE: tl.constexpr,
    V: tl.constexpr,
    R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """q_latent = q_nope . W_uk, head by head. Program (block of tokens, head, block of R)."""
    token = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    head = tl.program_id(1)
    r = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = token < tokens
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for c0 in range(0, NOPE, BLOCK_K):
        c = c0 + tl.arange(0, BLOCK_K)
        q = tl.load(
            q_nope + (token * H + head)[:, None] * NOPE + c[None, :],
            mask=live[:, None] & (c < NOPE)[None, :],
            other=0.0,
        )
        w_uk = tl.load(
            kv_up + (head * (NOPE + V) + c)[:, None] * R + r[None, :],
            mask=(c < NOPE)[:, None] & (r < R)[None, :],
            other=0.0,
        )
        total = tl.dot(q, w_uk, total, input_precision=PRECISION)
    tl.store(
        q_latent + (token * H + head)[:, None] * R + r[None, :],
        total.to(q_latent.dtype.element_ty),
        mask=live[:, None] & (r < R)[None, :],
    )


@triton.jit
def combine_kernel(
    part_sum,  # float32 [tokens, H, splits, R]
    part_max,  # float32 [tokens, H, splits]
    part_norm,  # float32 [tokens, H, splits]
    kv_up,  # [H, NOPE + V, R]
    positions,  # int64 [tokens]
    out,  # [tokens, H, V]
    tokens,
    splits,
    H: tl.constexpr,
    NOPE: tl.constexpr,
    V: tl.constexpr,
    R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = W_uv . (the spans' weighted latents, merged). Program (block of tokens, head, block of V)."""
    token = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    head = tl.program_id(1)
    v = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = token < tokens
    row = token * H + head
    best, inverse = merged_norm(part_max, part_norm, row, live, splits, BLOCK_M)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for r0 in range(0, R, BLOCK_K):
        r = r0 + tl.arange(0, BLOCK_K)
        latent = merged_sum(part_sum, part_max, best, inverse, row, live, splits, r, R, BLOCK_M, BLOCK_K)
        w_uv = tl.load(
            kv_up + (head * (NOPE + V) + NOPE + v)[None, :] * R + r[:, None],
            mask=(r < R)[:, None] & (v < V)[None, :],
            other=0.0,
        )
        total = tl.dot(latent.to(w_uv.dtype), w_uv, total, input_precision=PRECISION)
    real = tl.load(positions + token, mask=live, other=-1) >= 0
    tl.store(
        out + row[:, None] * V + v[None, :],
        tl.where(real[:, None], total, 0.0).to(out.dtype.element_ty),
        mask=live[:, None] & (v < V)[None, :],
    )
