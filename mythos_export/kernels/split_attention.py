"""Attention over a cache in Triton, split over the keys: what MLA and GQA share.

Each program takes a block of query rows and a span of the keys and keeps the running maximum, norm and weighted sum
of an online softmax (FlashAttention, https://arxiv.org/abs/2205.14135); the spans are merged afterwards
(Flash-Decoding, https://pytorch.org/blog/flash-decoding/). Rows are (token, head) pairs that read the same keys: the
heads of one kv head in GQA, all heads in MLA, where the keys are the latents themselves (DeepSeek-V2,
https://arxiv.org/abs/2405.04434).

Keys are numbered 0 .. past_length - 1 in the past, then the chunk's T. The past is read where it is, up to each
row's own length.

Legend: B batch, T new tokens, S capacity of the past, C cache width, G kv heads, SHARE query heads of a kv head,
R width of a query (the latent in MLA), P rotary width of MLA.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Large, yet finite: a span in which nothing may be attended to must stay free of NaN.
NOTHING = tl.constexpr(-1.0e30)


@triton.jit
def _values(at, there, scale):
    """Values of keys [BLOCK_N, .]: those at `at`, zeros where `there` does not hold. Integers, which have a scale for
    each key [BLOCK_N], become float32, which is exact."""
    if scale is None:
        return tl.load(at, mask=there, other=0.0)
    else:
        return tl.load(at, mask=there, other=0).to(tl.float32) * scale[:, None]


@triton.jit
def _attend(
    best,
    norm,
    total,
    query,
    query_row,
    query_rope,
    entry,
    live,
    there,
    allowed,
    scale,
    column,
    R: tl.constexpr,
    P: tl.constexpr,
    VALUE_OFFSET: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
    key_scale=None,
    other_scale=None,
):
    """One step of the online softmax over the keys at `entry`.

    best, norm [BLOCK_M] and total [BLOCK_M, BLOCK_R] are what was seen so far; entry [BLOCK_N] points to each key's
    first value; there [BLOCK_N] says which may be read, allowed [BLOCK_M or 1, BLOCK_N] who may attend to which.

    A wide query does not fit the registers, since every warp holds all of it for the scores: where BLOCK_K is less than
    R they are summed up BLOCK_K columns at a time, queries and keys read again from `query_row` and `entry`.
    `column` is the first of the BLOCK_R columns of the values that are added up.

    Of int8 entries key_scale and other_scale [BLOCK_N] are the scales of each key, and of what stands apart from it in
    its entry: its rotary part (MLA), its value (GQA).
    """
    r = column + tl.arange(0, BLOCK_R)
    readable = there[:, None] & (r < R)[None, :]
    if BLOCK_K < R:
        key = query
        scores = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k0 in range(0, R, BLOCK_K):
            k = k0 + tl.arange(0, BLOCK_K)
            some = tl.load(query_row[:, None] + k[None, :], mask=live[:, None] & (k < R)[None, :], other=0.0)
            keys = _values(entry[:, None] + k[None, :], there[:, None] & (k < R)[None, :], key_scale)
            scores = tl.dot(some, tl.trans(keys), scores, input_precision=PRECISION)
    else:
        key = _values(entry[:, None] + r[None, :], readable, key_scale)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
    if P > 0:
        p = tl.arange(0, BLOCK_P)
        rope_there = there[:, None] & (p < P)[None, :]
        key_rope = _values(entry[:, None] + R + p[None, :], rope_there, other_scale)
        scores = tl.dot(query_rope, tl.trans(key_rope), scores, input_precision=PRECISION)
    scores = tl.where(allowed, scores * scale, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1))
    fade = tl.exp(best - new_best)
    weight = tl.exp(scores - new_best[:, None])
    if VALUE_OFFSET == 0 and BLOCK_K >= R:  # MLA: the latents are keys and values at once
        value = key
    elif VALUE_OFFSET == 0:
        value = _values(entry[:, None] + r[None, :], readable, key_scale)
    else:
        value = _values(entry[:, None] + VALUE_OFFSET + r[None, :], readable, other_scale)
    total = tl.dot(weight.to(value.dtype), value, total * fade[:, None], input_precision=PRECISION)
    return new_best, norm * fade + tl.sum(weight, 1), total


@triton.jit
def split_kernel(
    query,  # [B, T, G * SHARE, R]
    query_rope,  # [B, T, G * SHARE, P]; not read where P is 0
    past,  # [L, B, S, C], entries C apart
    chunk,  # [B, T, C]
    layer,  # int64 []
    positions,  # int64 [B, T]
    past_lengths,  # int64 [B]
    part_sum,  # float32 [B * T * G * SHARE, splits, R]
    part_max,  # float32 [B * T * G * SHARE, splits]
    part_norm,  # float32 [B * T * G * SHARE, splits]
    T,
    stride_layer,  # of past, in elements
    stride_batch,
    scale,
    G: tl.constexpr,
    SHARE: tl.constexpr,
    R: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    VALUE_OFFSET: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (block of rows, batch row and kv head, span of the keys): the span's maximum, norm and weighted sum.

    Where R is more than BLOCK_R, as many programs as there are blocks of columns share a span, one behind another: each
    works out all of its scores, and its own columns of the sum.
    """
    b = (tl.program_id(1) // G).to(tl.int64)
    g = tl.program_id(1) % G
    blocks: tl.constexpr = (R + BLOCK_R - 1) // BLOCK_R
    split, splits = tl.program_id(2) // blocks, tl.num_programs(2) // blocks
    column = tl.program_id(2) % blocks * BLOCK_R
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    t = m // SHARE
    live = t < T
    row = (b * T + t) * (G * SHARE) + g * SHARE + m % SHARE
    r = column + tl.arange(0, BLOCK_R)
    position = tl.load(positions + b * T + t, mask=live, other=-1)
    q_row = query + row * R
    q = row
    if BLOCK_K >= R:
        q = tl.load(q_row[:, None] + r[None, :], mask=live[:, None] & (r < R)[None, :], other=0.0)
    q_rope = q
    if P > 0:
        p = tl.arange(0, BLOCK_P)
        q_rope = tl.load(query_rope + row[:, None] * P + p[None, :], mask=live[:, None] & (p < P)[None, :], other=0.0)

    held = tl.load(past_lengths + b).to(tl.int32)
    span = tl.cdiv(tl.cdiv(held + T, splits), BLOCK_N) * BLOCK_N
    first = split * span
    last = tl.minimum(first + span, held + T)
    best = tl.full((BLOCK_M,), NOTHING, tl.float32)
    norm = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)

    past += tl.load(layer) * stride_layer + b * stride_batch + g * R
    for s0 in range(first, tl.minimum(last, held), BLOCK_N):
        s = s0 + tl.arange(0, BLOCK_N)
        there = s < tl.minimum(last, held)
        best, norm, total = _attend(
            best, norm, total, q, q_row, q_rope, past + s.to(tl.int64) * C, live, there, there[None, :], scale,
            column, R, P, VALUE_OFFSET, BLOCK_M, BLOCK_N, BLOCK_K, BLOCK_R, BLOCK_P, PRECISION,
        )  # fmt: skip

    chunk += b * T * C + g * R
    for s0 in range(tl.maximum(first - held, 0), last - held, BLOCK_N):
        s = s0 + tl.arange(0, BLOCK_N)
        key_position = tl.load(positions + b * T + s, mask=s < last - held, other=-1)
        there = key_position >= 0
        allowed = there[None, :] & (key_position[None, :] <= position[:, None])
        if tl.max(tl.max(allowed.to(tl.int32), 1), 0) > 0:  # the future of the whole block is not read
            best, norm, total = _attend(
                best, norm, total, q, q_row, q_rope, chunk + s.to(tl.int64) * C, live, there, allowed, scale,
                column, R, P, VALUE_OFFSET, BLOCK_M, BLOCK_N, BLOCK_K, BLOCK_R, BLOCK_P, PRECISION,
            )  # fmt: skip

    part = row * splits + split
    tl.store(part_max + part, best, mask=live)
    tl.store(part_norm + part, norm, mask=live)
    tl.store(part_sum + part[:, None] * R + r[None, :], total, mask=live[:, None] & (r < R)[None, :])


@triton.jit
def merged_norm(part_max, part_norm, row, live, splits, BLOCK_M: tl.constexpr):
    """The maximum over a row's spans and one over the norm of all of them (0 where nothing was attended to)."""
    best = tl.full((BLOCK_M,), NOTHING, tl.float32)
    norm = tl.zeros((BLOCK_M,), tl.float32)
    for split in range(splits):
        span_max = tl.load(part_max + row * splits + split, mask=live, other=NOTHING)
        span_norm = tl.load(part_norm + row * splits + split, mask=live, other=0.0)
        new_best = tl.maximum(best, span_max)
        norm = norm * tl.exp(best - new_best) + span_norm * tl.exp(span_max - new_best)
        best = new_best
    return best, tl.where(norm > 0, 1.0 / tl.where(norm > 0, norm, 1.0), 0.0)


@triton.jit
def merged_sum(
    part_sum, part_max, best, inverse, row, live, splits, r,
    R: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The attention's result for the columns r [BLOCK_R] as float32 [BLOCK_M, BLOCK_R]."""
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    there = live[:, None] & (r < R)[None, :]
    for split in range(splits):
        part = row * splits + split
        share = tl.exp(tl.load(part_max + part, mask=live, other=NOTHING) - best)
        total += share[:, None] * tl.load(part_sum + part[:, None] * R + r[None, :], mask=there, other=0.0)
    return total * inverse[:, None]


attend = _attend  # also a step of `paged_attention`'s kernels
