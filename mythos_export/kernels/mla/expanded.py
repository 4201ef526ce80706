"""The expanded form of multi-head latent attention in Triton: keys and values are made per head, then attended to.

Where many new tokens meet their keys it multiplies less than the absorbed form of `triton.py` (at the widths of the 1b
variant, 3.4 times less); `plan.py` says when it is taken. The attention is FlashAttention's
(https://arxiv.org/abs/2205.14135) in one pass: many rows are enough programs without splitting the keys.

Legend: B batch, T new tokens, S capacity of the past, C = R + P width of a cache line, H heads, NOPE and P unrotated
and rotated width of a query, V width of a value.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mythos_export.kernels.split_attention import NOTHING


@triton.jit
def expand_kernel(
    past,  # [L, B, S, C], entries C apart
    chunk,  # [B, T, C]
    layer,  # int64 []
    past_lengths,  # int64 [B]
    kv_up,  # [WIDTH, R]: of every head NOPE + V rows
    expanded,  # [B, S + T, WIDTH]: the past's keys and values, then the chunk's
    T,
    S,
    stride_layer,  # of past, in elements
    stride_batch,
    WIDTH: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """expanded = latents . kv_up^T. Program (block of keys of the past, then of the chunk; block of columns; b).

    Of the past no more is made than there is.
    """
    b = tl.program_id(2).to(tl.int64)
    block = tl.program_id(0)
    blocks = tl.cdiv(S, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    source = past + tl.load(layer) * stride_layer + b * stride_batch
    there = tl.load(past_lengths + b).to(tl.int32)
    target = expanded + b * (S + T) * WIDTH
    if block >= blocks:
        block -= blocks
        source = chunk + b * T * C
        target += tl.cast(S, tl.int64) * WIDTH
        there = T
    if block * BLOCK_M >= there:
        return
    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    live = m < there
    row = m.to(tl.int64)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for r0 in range(0, R, BLOCK_K):
        r = r0 + tl.arange(0, BLOCK_K)
        latent = tl.load(source + row[:, None] * C + r[None, :], mask=live[:, None] & (r < R)[None, :], other=0.0)
        weight = tl.load(
            kv_up + column[None, :].to(tl.int64) * R + r[:, None],
            mask=(r < R)[:, None] & (column < WIDTH)[None, :],
            other=0.0,
        )
        total = tl.dot(latent, weight, total, input_precision=PRECISION)
    tl.store(
        target + row[:, None] * WIDTH + column[None, :],
        total.to(expanded.dtype.element_ty),
        mask=live[:, None] & (column < WIDTH)[None, :],
    )


@triton.jit
def _step(
    best, norm, total, q, q_rope, made, ropes, there, allowed, scale,
    NOPE: tl.constexpr, P: tl.constexpr, V: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax over the keys `there` [BLOCK_N]: `made` points to each one's key and value of this
    head, `ropes` to its rotated part."""
    c, p, v = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_V)
    key = tl.load(made[:, None] + c[None, :], mask=there[:, None] & (c < NOPE)[None, :], other=0.0)
    rope = tl.load(ropes[:, None] + p[None, :], mask=there[:, None] & (p < P)[None, :], other=0.0)
    value = tl.load(made[:, None] + NOPE + v[None, :], mask=there[:, None] & (v < V)[None, :], other=0.0)
    scores = tl.dot(q, tl.trans(key), input_precision=PRECISION)
    scores = tl.dot(q_rope, tl.trans(rope), scores, input_precision=PRECISION)
    scores = tl.where(allowed, scores * scale, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1))
    fade = tl.exp(best - new_best)
    weight = tl.exp(scores - new_best[:, None])
    total = tl.dot(weight.to(value.dtype), value, total * fade[:, None], input_precision=PRECISION)
    return new_best, norm * fade + tl.sum(weight, 1), total


@triton.jit
def attend_kernel(
    q_nope,  # [B, T, H, NOPE]
    q_rope,  # [B, T, H, P]
    expanded,  # [B, S + T, H, NOPE + V]
    past,  # [L, B, S, C]; of it only the rotated keys are read
    chunk,  # [B, T, C]; likewise
    layer,  # int64 []
    positions,  # int64 [B, T]
    past_lengths,  # int64 [B]
    out,  # [B, T, H, V]
    T,
    S,
    stride_layer,  # of past, in elements
    stride_batch,
    scale,
    H: tl.constexpr,
    NOPE: tl.constexpr,
    P: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (block of new tokens, head, b)."""
    head = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = t < T
    row = (b * T + t) * H + head
    c, p, v = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_V)
    q = tl.load(q_nope + row[:, None] * NOPE + c[None, :], mask=live[:, None] & (c < NOPE)[None, :], other=0.0)
    rope = tl.load(q_rope + row[:, None] * P + p[None, :], mask=live[:, None] & (p < P)[None, :], other=0.0)
    position = tl.load(positions + b * T + t, mask=live, other=-1)
    best = tl.full((BLOCK_M,), NOTHING, tl.float32)
    norm = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)

    WIDTH: tl.constexpr = H * (NOPE + V)
    made = expanded + b * (S + T) * WIDTH + head * (NOPE + V)
    ropes = past + tl.load(layer) * stride_layer + b * stride_batch + (C - P)
    held = tl.load(past_lengths + b).to(tl.int32)
    for s0 in range(0, held, BLOCK_N):
        s = (s0 + tl.arange(0, BLOCK_N)).to(tl.int64)
        there = s < held
        best, norm, total = _step(
            best, norm, total, q, rope, made + s * WIDTH, ropes + s * C, there, there[None, :], scale,
            NOPE, P, V, BLOCK_C, BLOCK_P, BLOCK_V, PRECISION,
        )  # fmt: skip

    # The future of the whole block is not read. Which keys those are is asked beforehand, so that nothing in the loop
    # over the keys depends on it, and their loads can be started ahead.
    newest = tl.max(position, 0)
    end = 0
    for s0 in range(0, T, BLOCK_N):
        s = s0 + tl.arange(0, BLOCK_N)
        key_position = tl.load(positions + b * T + s, mask=s < T, other=-1)
        seen = (key_position >= 0) & (key_position <= newest)
        end = tl.where(tl.max(seen.to(tl.int32), 0) > 0, s0 + BLOCK_N, end)

    made += tl.cast(S, tl.int64) * WIDTH
    ropes = chunk + b * T * C + (C - P)
    for s0 in range(0, tl.minimum(end, T), BLOCK_N):
        s = (s0 + tl.arange(0, BLOCK_N)).to(tl.int64)
        key_position = tl.load(positions + b * T + s, mask=s < T, other=-1)
        there = key_position >= 0
        allowed = there[None, :] & (key_position[None, :] <= position[:, None])
        best, norm, total = _step(
            best, norm, total, q, rope, made + s * WIDTH, ropes + s * C, there, allowed, scale,
            NOPE, P, V, BLOCK_C, BLOCK_P, BLOCK_V, PRECISION,
        )  # fmt: skip

    total *= tl.where((norm > 0) & (position >= 0), 1.0 / tl.where(norm > 0, norm, 1.0), 0.0)[:, None]
    tl.store(
        out + row[:, None] * V + v[None, :],
        total.to(out.dtype.element_ty),
        mask=live[:, None] & (v < V)[None, :],
    )
