"""GQA and MLA attention. Both make a chunk of cache entries and attend over the past and that chunk.

Where caches are int8 (`Attention.int8_cache`), an entry is rounded as soon as it is made, and attention sees what the
cache will hold: of the tokens of its own call and of the token itself, too. So in an engine, whose rows compute the
same bits in any company, an answer does not depend on how a prompt came in chunks, or in a batch. Elsewhere sums in
another order may turn a value that is near the middle of two integers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.blocks import Matrix, RMSNorm, Rotary
from mythos_model.cache_lines import Parts, rounded_line
from mythos_model.paged_ops import paged_gqa_attention, paged_mla_attention
from mythos_model.taps import tap

if TYPE_CHECKING:
    from mythos_model.rows import Rows


class Past(NamedTuple):
    """What every layer of one call shares: where the new tokens stand and what is cached before them.

    Attributes:
        positions: int64 [B, T], -1 for padding.
        lengths: int64 [B], valid entries of the past.
        rotary: the angles of `positions`.
        tokens: what layers read of the tokens themselves (`LoopedModel.per_token`).
    """

    positions: Tensor
    lengths: Tensor
    rotary: Rotary
    tokens: Any = None


class Attention(nn.Module, ABC):
    """What both kinds share: how the lines of their caches are kept.

    Attributes:
        int8_cache: whether they are rounded to int8 (`mythos_model.cache_lines`), each of their parts by itself.
    """

    int8_cache: bool = False

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """The widths of what of a line is of one kind, and would have one scale."""

    def _kept(self, x: Tensor, width: int) -> Tensor:
        """x [..., n * width] as the cache keeps it, parts of one width."""
        if not self.int8_cache:
            return x
        return (torch.ops.mythos.rounded_line if torch.compiler.is_exporting() else rounded_line)(x, width)


class GroupedQueryAttention(Attention):
    """Grouped-query attention (https://arxiv.org/abs/2305.13245) with rotary positions over the whole head.

    `qk_norm`: the epsilon of a norm without weights over every head of queries and keys, after their rotation; None
    where there is none.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        qk_bias: bool = False,
        qk_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.qk_norm = heads, kv_heads, head_dim, qk_norm
        self.q_bias = nn.Parameter(torch.zeros(heads * head_dim)) if qk_bias else None
        self.k_bias = nn.Parameter(torch.zeros(kv_heads * head_dim)) if qk_bias else None
        self.wq = nn.Linear(dim, heads * head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.wo = nn.Linear(heads * head_dim, dim, bias=False)

    @property
    def parts(self) -> Parts:
        """Every head's key, then every head's value: a head attends by itself, and one with large keys would cost the
        others their precision."""
        return (self.head_dim,) * (2 * self.kv_heads)

    def forward(
        self, x: Tensor, past: Past, stored: Tensor, layer: Tensor, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, D], stored [L, B, S, C] read at `layer` -> (y [B, T, D], chunk [B, T, C]).

        `added` [B, T, G * hd] is added to the values.
        """
        q, chunk = self._project(x, past.rotary, added)
        attend = torch.ops.mythos.gqa_attention if torch.compiler.is_exporting() else ops.gqa_attention
        scale = self.head_dim**-0.5
        y = attend(q, stored, layer, chunk, past.positions, past.lengths, scale, self.kv_heads)
        return self.wo(y), chunk

    def paged(
        self, x: Tensor, rows: Rows, cache: Tensor, show: str | None, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Packed rows x [R, D], cache [pages, page, C] -> (y [R, D], the cache with their entries)."""
        q, entry = self._project(x, rows.rotary, added)
        attend = torch.ops.mythos.paged_gqa_attention if torch.compiler.is_exporting() else paged_gqa_attention
        where = cache, rows.tables, rows.span, rows.position
        y, cache = attend(q, _shown(entry, show), *where, self.head_dim**-0.5, self.kv_heads)
        return self.wo(y), cache

    def _project(self, x: Tensor, rotary: Rotary, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """q [..., H, hd] and the cache entries [..., C] of x [..., D]."""
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        if added is not None:
            v = v + added
        if self.q_bias is not None:
            q, k = q + self.q_bias, k + self.k_bias
        q = rotary.rotate(q, self.heads).unflatten(-1, (self.heads, self.head_dim))
        k = rotary.rotate(k, self.kv_heads)
        if self.qk_norm is not None:
            norm = torch.ops.mythos.rms_norm if torch.compiler.is_exporting() else ops.rms_norm
            q = norm(q, None, self.qk_norm)
            k = norm(k.unflatten(-1, (self.kv_heads, self.head_dim)), None, self.qk_norm).flatten(-2)
        return q, self._kept(torch.cat([k, v], -1), self.head_dim)


class LatentAttention(Attention):
    """Multi-head latent attention (DeepSeek-V2, https://arxiv.org/abs/2405.04434).

    The cache holds the normed latent and one rotary key that all heads share: R + P values per token, where the
    reference keeps the rotary key once per head.
    """

    def __init__(self, dim: int, heads: int, q_rank: int, latent: int, nope: int, rope: int, v: int) -> None:
        super().__init__()
        self.heads, self.latent, self.nope, self.rope, self.v = heads, latent, nope, rope, v
        self.q_down = nn.Linear(dim, q_rank, bias=False)
        self.q_norm = RMSNorm(q_rank)
        self.q_up_nope = nn.Linear(q_rank, heads * nope, bias=False)
        self.q_up_rope = nn.Linear(q_rank, heads * rope, bias=False)
        self.kv_down = nn.Linear(dim, latent + rope, bias=False)
        self.kv_norm = RMSNorm(latent)
        self.kv_up = Matrix(latent, heads * (nope + v), bias=False)
        self.wo = nn.Linear(heads * v, dim, bias=False)

    @property
    def parts(self) -> Parts:
        """The latent, whose norm makes its size, and the rotary key, which has none."""
        return self.latent, self.rope

    def forward(self, x: Tensor, past: Past, stored: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, D], stored [L, B, S, C] read at `layer` -> (y [B, T, D], chunk [B, T, C])."""
        q_nope, q_rope, chunk = self._project(x, past.rotary)
        attend = torch.ops.mythos.mla_attention if torch.compiler.is_exporting() else ops.mla_attention
        where = stored, layer, chunk, past.positions, past.lengths
        return self.wo(attend(q_nope, q_rope, *where, self.kv_up.weight, self._scale, self.v)), chunk

    def paged(self, x: Tensor, rows: Rows, cache: Tensor, show: str | None) -> tuple[Tensor, Tensor]:
        """Packed rows x [R, D], cache [pages, page, C] -> (y [R, D], the cache with their entries)."""
        q_nope, q_rope, entry = self._project(x, rows.rotary)
        attend = torch.ops.mythos.paged_mla_attention if torch.compiler.is_exporting() else paged_mla_attention
        where = _shown(entry, show), cache, rows.tables, rows.span, rows.position
        y, cache = attend(q_nope, q_rope, *where, self.kv_up.weight, self._scale, self.v)
        return self.wo(y), cache

    @property
    def _scale(self) -> float:
        return float((self.nope + self.rope) ** -0.5)

    def _project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """q_nope [..., H, nope], q_rope [..., H, P] and the cache entries [..., C] of x [..., D]."""
        c_q = self.q_norm(self.q_down(x))
        q_nope = self.q_up_nope(c_q).unflatten(-1, (self.heads, self.nope))
        q_rope = rotary.rotate(self.q_up_rope(c_q), self.heads).unflatten(-1, (self.heads, self.rope))
        c_kv, k_rope = self.kv_down(x).split([self.latent, self.rope], -1)
        latent, k_rope = self._kept(self.kv_norm(c_kv), self.latent), self._kept(rotary.rotate(k_rope, 1), self.rope)
        return q_nope, q_rope, torch.cat([latent, k_rope], -1)


def _shown(entry: Tensor, name: str | None) -> Tensor:
    return entry if name is None else tap(entry, name)
