"""Attention of packed rows over a paged cache, in plain PyTorch, registered as `torch.ops.mythos.paged_*_attention`.

Each is there twice: as a graph has it, which returns a new cache, and with a `_` behind its name, which writes into the
cache that it is given and returns the attention alone. Neither looks at values on the host, so that both can be
captured into a CUDA graph.

A row is one token of one sequence at one loop depth. A call takes rows of any sequences, positions and depths; the
rows of one (sequence, depth) are a span. Every row's cache entry is written first, then a row attends to the entries
0 .. position of its span: causality is a length, and a chunk needs no mask.

The cache is a pool of pages, each with the entries of `page` consecutive positions of one span; a span's table names
its pages in the order of positions. What is in other pages, and behind a span's newest entry, is never read. Pages are
of the entries' type, or int8 (`mythos_model.cache_lines`): entries are rounded then as they are written, and attention
reads what they were rounded to.

Legend for the shape comments: r rows, s spans, b blocks of a table, H heads, G kv heads, R kv_lora_rank, P rotary
width, C cache width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mythos_model.cache_lines import Parts, pack, unpack
from mythos_model.ops import MASKED, accumulation_dtype


def paged_gqa_attention(
    q: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    scale: float,
    kv_heads: int,
) -> tuple[Tensor, Tensor]:
    """Grouped-query attention of packed rows.

    Args:
        q: [r, H, hd], rotated.
        entry: [r, C] with C = 2 * G * hd: the row's rotated keys of every kv head, then its values.
        cache: [pages, page, C]; of int8 lines, a scale for each head's key and value, [pages, page, C + 4 * G].
        tables: int64 [s, b], the pages of every span; not read behind a span's newest row.
        span: int64 [r], which table is the row's; -1 marks padding, which is not written and attends to nothing.
        position: int64 [r], distinct within a span; every entry before a row's position is in the cache or the call.
        scale: factor on the scores.
        kv_heads: G; kv head g serves query heads g*(H/G) .. (g+1)*(H/G)-1.

    Returns: [r, H * hd], zeros for padding; and the cache with the entries, [pages, page, C].
    """
    cache = cache.clone()
    return paged_gqa_attention_(q, entry, cache, tables, span, position, scale, kv_heads), cache


def paged_gqa_attention_(
    q: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    scale: float,
    kv_heads: int,
) -> Tensor:
    """As `paged_gqa_attention`, but the entries are written into `cache` itself. Returns [r, H * hd]."""
    r, H, hd = q.shape
    parts = (hd,) * (2 * kv_heads)
    append_(entry, cache, tables, span, position, parts)
    keys, mask = _keys_and_mask(cache, tables, span, position, parts, q.dtype)  # [r, b*page, C], [r, 1, b*page]
    k, v = keys.unflatten(-1, (2, kv_heads, hd)).permute(2, 0, 3, 1, 4).unbind(0)  # [r, G, b*page, hd] each
    grouped = q.unflatten(1, (kv_heads, H // kv_heads))  # [r, G, H/G, hd]
    weights = _softmax(torch.matmul(grouped, k.transpose(-1, -2)), mask.unsqueeze(1), scale)
    return _without_padding(torch.matmul(weights, v).reshape(r, H * hd), span)


def paged_mla_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> tuple[Tensor, Tensor]:
    """Multi-head latent attention of packed rows, in the absorbed form whatever the number of rows.

    The expanded form multiplies less for a long chunk, but rounds otherwise, and a row's result would depend on the
    chunk that it came in.

    Args:
        q_nope: [r, H, nope]; q_rope: [r, H, P], rotated.
        entry: [r, C] with C = R + P: the row's normed latent, then the shared rotated key.
        cache, tables, span, position, scale: as in `paged_gqa_attention`; of int8 lines, a scale for the latent and one
            for the rotary key, [pages, page, C + 4].
        kv_up: [H * (nope + v), R].
        v_head_dim: v.

    Returns: [r, H * v], zeros for padding; and the cache with the entries, [pages, page, C].
    """
    cache = cache.clone()
    place = (tables, span, position)
    return paged_mla_attention_(q_nope, q_rope, entry, cache, *place, kv_up, scale, v_head_dim), cache


def paged_mla_attention_(
    q_nope: Tensor,
    q_rope: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> Tensor:
    """As `paged_mla_attention`, but the entries are written into `cache` itself. Returns [r, H * v]."""
    r, H, nope = q_nope.shape
    R = kv_up.shape[1]
    w_uk, w_uv = kv_up.view(H, nope + v_head_dim, R).split([nope, v_head_dim], 1)  # [H, nope, R], [H, v, R]
    parts = (R, q_rope.shape[-1])
    append_(entry, cache, tables, span, position, parts)
    keys, mask = _keys_and_mask(cache, tables, span, position, parts, q_nope.dtype)  # [r, b*page, C], [r, 1, b*page]
    latent_q = torch.matmul(q_nope.transpose(0, 1), w_uk).transpose(0, 1)  # [r, H, R]
    scores = torch.matmul(torch.cat([latent_q, q_rope], -1), keys.transpose(-1, -2))  # [r, H, b*page]
    latent = torch.matmul(_softmax(scores, mask, scale), keys[..., :R])  # [r, H, R]
    out = torch.matmul(latent.transpose(0, 1), w_uv.transpose(-1, -2)).transpose(0, 1)  # [r, H, v]
    return _without_padding(out.reshape(r, H * v_head_dim), span)


def append_(entry: Tensor, cache: Tensor, tables: Tensor, span: Tensor, position: Tensor, parts: Parts) -> None:
    """Write the entry of every row that is no padding; arguments as in `paged_gqa_attention`, `parts` of an int8 line.

    Padding writes what the first real row writes, once more; where all is padding, what is there already.
    """
    if not len(span):
        return
    if cache.dtype == torch.int8:
        entry = pack(entry, parts)
    real, page = span >= 0, cache.shape[1]
    source = torch.where(real, torch.arange(len(span), device=span.device), real.int().argmax())
    to_span, at = span[source].clamp(min=0), position[source].clamp(min=0)
    is_any = real.any()
    number = torch.where(is_any, tables[to_span, torch.where(is_any, at // page, 0)], 0)
    offset = at % page
    cache[number, offset] = torch.where(is_any, entry[source], cache[number, offset])


def _keys_and_mask(
    cache: Tensor, tables: Tensor, span: Tensor, position: Tensor, parts: Parts, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The entries of every row's span in `dtype`, zeros behind its own [r, b*page, C]; who is attended to
    [r, 1, b*page]."""
    page, blocks = cache.shape[1], tables.shape[1]
    last = torch.where(span >= 0, position, -1).unsqueeze(1)
    reached = torch.arange(blocks, device=last.device) * page <= last
    pages = torch.where(reached, tables[span.clamp(min=0)], 0)  # [r, b]; what is not reached may hold any number
    seen = torch.arange(blocks * page, device=last.device) <= last
    found = cache[pages].flatten(1, 2)
    if cache.dtype == torch.int8:
        found = unpack(found, parts, dtype)
    keys = found.masked_fill(~seen.unsqueeze(-1), 0)  # a NaN would survive a weight of zero
    mask = torch.zeros(seen.shape, dtype=accumulation_dtype(dtype), device=cache.device)
    return keys, mask.masked_fill(~seen, MASKED).unsqueeze(1)


def _softmax(scores: Tensor, mask: Tensor, scale: float) -> Tensor:
    return torch.softmax(scores.to(mask.dtype) * scale + mask, -1).to(scores.dtype)


def _without_padding(out: Tensor, span: Tensor) -> Tensor:
    return out.masked_fill((span < 0).unsqueeze(-1), 0)


_gqa_op = torch.library.custom_op("mythos::paged_gqa_attention", paged_gqa_attention, mutates_args=())
_mla_op = torch.library.custom_op("mythos::paged_mla_attention", paged_mla_attention, mutates_args=())
_gqa_in_place = torch.library.custom_op("mythos::paged_gqa_attention_", paged_gqa_attention_, mutates_args=("cache",))
_mla_in_place = torch.library.custom_op("mythos::paged_mla_attention_", paged_mla_attention_, mutates_args=("cache",))


@_gqa_op.register_fake
def _(q, entry, cache, tables, span, position, scale, kv_heads):  # type: ignore[no-untyped-def]
    r, H, hd = q.shape
    return q.new_empty(r, H * hd), torch.empty_like(cache)


@_mla_op.register_fake
def _(q_nope, q_rope, entry, cache, tables, span, position, kv_up, scale, v_head_dim):  # type: ignore[no-untyped-def]
    r, H, _nope = q_nope.shape
    return q_nope.new_empty(r, H * v_head_dim), torch.empty_like(cache)


@_gqa_in_place.register_fake
def _(q, entry, cache, tables, span, position, scale, kv_heads):  # type: ignore[no-untyped-def]
    r, H, hd = q.shape
    return q.new_empty(r, H * hd)


@_mla_in_place.register_fake
def _(q_nope, q_rope, entry, cache, tables, span, position, kv_up, scale, v_head_dim):  # type: ignore[no-untyped-def]
    r, H, _nope = q_nope.shape
    return q_nope.new_empty(r, H * v_head_dim)
