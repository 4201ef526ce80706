"""Attention of packed rows over a paged cache in Triton, split over the keys: what MLA and GQA share.

A row's keys are the entries 0 .. position of its span, page by page as the span's table names them. One kernel writes
the rows' entries into the cache; then a program takes a row's query heads (those of one kv head) and a part of its
keys, in the steps of an online softmax that `split_attention` has; the parts are merged by the kernels of the
attentions over a past. A block of keys lies within a page, so its entries are one behind another.

Of int8 pages (`mythos_model.cache_lines`) entries are rounded as they are written, and made float32 as they are read.

Legend: C entry width, G kv heads, SHARE query heads of a kv head, R width of a query (the latent in MLA), P rotary
width of MLA.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mythos_export.kernels.rounded_line.triton import load_scale, round_part
from mythos_export.kernels.split_attention import NOTHING, attend


@triton.jit
def append_kernel(
    entry,  # [rows, C]
    cache,  # [pages, PAGE, C]
    tables,  # int64 [spans, blocks]
    span,  # int64 [rows]
    position,  # int64 [rows]
    blocks,
    C: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Program (row, block of C): the row's entry to where it belongs; nothing for padding."""
    row = tl.program_id(0).to(tl.int64)
    of = tl.load(span + row)
    if of >= 0:
        at = tl.load(position + row)
        page = tl.load(tables + of * blocks + at // PAGE)
        c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
        value = tl.load(entry + row * C + c, mask=c < C)
        tl.store(cache + (page * PAGE + at % PAGE) * C + c, value, mask=c < C)


@triton.jit
def append_rounded_kernel(
    entry,  # float32 [rows, C]
    cache,  # int8 [pages, PAGE, C + 2 * PARTS]
    tables,  # int64 [spans, blocks]
    span,  # int64 [rows]
    position,  # int64 [rows]
    blocks,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    LAST: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Program (row, part): that part of the row's entry, rounded, to where it belongs; nothing for padding.

    Parts are WIDTH wide, the last one LAST.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    of = tl.load(span + row)
    if of >= 0:
        C: tl.constexpr = (PARTS - 1) * WIDTH + LAST
        at = tl.load(position + row)
        page = tl.load(tables + of * blocks + at // PAGE)
        line = cache + (page * PAGE + at % PAGE) * (C + 2 * PARTS)
        c = tl.arange(0, BLOCK_C)
        there = c < tl.where(part == PARTS - 1, LAST, WIDTH)
        integers, scale = round_part(tl.load(entry + row * C + part * WIDTH + c, mask=there, other=0.0))
        tl.store(line + part * WIDTH + c, integers, mask=there)
        tl.store(line + C + 2 * part, (scale & 255).to(tl.int8))
        tl.store(line + C + 2 * part + 1, (scale >> 8).to(tl.int8))


@triton.jit
def paged_split_kernel(
    query,  # [rows, G * SHARE, R]
    query_rope,  # [rows, G * SHARE, P]; not read where P is 0
    cache,  # [pages, PAGE, C]; int8 [pages, PAGE, C + 2 * PARTS] where PARTS is not 0
    tables,  # int64 [spans, blocks]
    span,  # int64 [rows]
    position,  # int64 [rows]
    part_sum,  # float32 [rows * G * SHARE, splits, R]
    part_max,  # float32 [rows * G * SHARE, splits]
    part_norm,  # float32 [rows * G * SHARE, splits]
    blocks,
    scale,
    G: tl.constexpr,
    SHARE: tl.constexpr,
    R: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    VALUE_OFFSET: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (block of heads, row and kv head, part of the keys): the part's maximum, norm and weighted sum.

    Where R is more than BLOCK_R, as many programs as there are blocks of columns share a part, as in `split_kernel`.
    """
    packed = (tl.program_id(1) // G).to(tl.int64)
    g = tl.program_id(1) % G
    columns: tl.constexpr = (R + BLOCK_R - 1) // BLOCK_R
    split, splits = tl.program_id(2) // columns, tl.num_programs(2) // columns
    column = tl.program_id(2) % columns * BLOCK_R
    of = tl.load(span + packed)
    head = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = (head < SHARE) & (of >= 0)
    row = packed * (G * SHARE) + g * SHARE + head
    r = column + tl.arange(0, BLOCK_R)
    q_row = query + row * R
    q = row
    if BLOCK_K >= R:
        q = tl.load(q_row[:, None] + r[None, :], mask=live[:, None] & (r < R)[None, :], other=0.0)
    q_rope = q
    if P > 0:
        p = tl.arange(0, BLOCK_P)
        q_rope = tl.load(query_rope + row[:, None] * P + p[None, :], mask=live[:, None] & (p < P)[None, :], other=0.0)

    keys = tl.where(of >= 0, tl.load(position + packed) + 1, 0).to(tl.int32)
    part = tl.cdiv(tl.cdiv(keys, splits), PAGE) * PAGE  # whole pages
    first = split * part
    last = tl.minimum(first + part, keys)
    best = tl.full((BLOCK_M,), NOTHING, tl.float32)
    norm = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    tables += of * blocks
    line: tl.constexpr = C + 2 * PARTS
    scales = cache + C + 2 * g  # of a line's keys; as many lie between them and those of its values, or rotary keys
    cache += g * R
    for s0 in range(first, last, BLOCK_N):
        s = s0 + tl.arange(0, BLOCK_N)
        there = s < last
        at = tl.load(tables + s0 // PAGE) * PAGE + s0 % PAGE + tl.arange(0, BLOCK_N)
        key_scale, other_scale = None, None
        if PARTS > 0:
            key_scale = load_scale(scales + at * line, there)
            other_scale = load_scale(scales + at * line + 2 * G, there)
        best, norm, total = attend(
            best, norm, total, q, q_row, q_rope, cache + at * line, live, there, there[None, :], scale,
            column, R, P, VALUE_OFFSET, BLOCK_M, BLOCK_N, BLOCK_K, BLOCK_R, BLOCK_P, PRECISION, key_scale, other_scale,
        )  # fmt: skip

    place = row * splits + split
    written = head < SHARE
    tl.store(part_max + place, best, mask=written)
    tl.store(part_norm + place, norm, mask=written)
    tl.store(part_sum + place[:, None] * R + r[None, :], total, mask=written[:, None] & (r < R)[None, :])
