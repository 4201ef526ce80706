"""GQA and MLA attention. Both make a chunk of cache entries and attend over the past and that chunk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.blocks import RMSNorm, Rotary


class Past(NamedTuple):
    """What every layer of one call shares: where the new tokens stand and what is cached before them.

    Attributes:
        positions: int64 [B, T], -1 for padding.
        lengths: int64 [B], valid entries of the past.
        rotary: the angles of `positions`.
    """

    positions: Tensor
    lengths: Tensor
    rotary: Rotary


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention (https://arxiv.org/abs/2305.13245) with rotary positions over the whole head."""

    def __init__(self, dim: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.wq = nn.Linear(dim, heads * head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.wo = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x: Tensor, past: Past, stored: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, D], stored [L, B, S, C] read at `layer` -> (y [B, T, D], chunk [B, T, C])."""
        q = past.rotary.rotate(self.wq(x), self.heads).unflatten(-1, (self.heads, self.head_dim))
        k = past.rotary.rotate(self.wk(x), self.kv_heads)
        chunk = torch.cat([k, self.wv(x)], -1)
        attend = torch.ops.mythos.gqa_attention if torch.compiler.is_exporting() else ops.gqa_attention
        scale = self.head_dim**-0.5
        y = attend(q, stored, layer, chunk, past.positions, past.lengths, scale, self.kv_heads)
        return self.wo(y), chunk


class LatentAttention(nn.Module):
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
        self.kv_up = nn.Linear(latent, heads * (nope + v), bias=False)
        self.wo = nn.Linear(heads * v, dim, bias=False)

    def forward(self, x: Tensor, past: Past, stored: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, D], stored [L, B, S, C] read at `layer` -> (y [B, T, D], chunk [B, T, C])."""
        c_q = self.q_norm(self.q_down(x))
        q_nope = self.q_up_nope(c_q).unflatten(-1, (self.heads, self.nope))
        q_rope = past.rotary.rotate(self.q_up_rope(c_q), self.heads).unflatten(-1, (self.heads, self.rope))
        c_kv, k_rope = self.kv_down(x).split([self.latent, self.rope], -1)
        chunk = torch.cat([self.kv_norm(c_kv), past.rotary.rotate(k_rope, 1)], -1)
        attend = torch.ops.mythos.mla_attention if torch.compiler.is_exporting() else ops.mla_attention
        scale = (self.nope + self.rope) ** -0.5
        kv_up = self.kv_up.weight
        y = attend(q_nope, q_rope, stored, layer, chunk, past.positions, past.lengths, kv_up, scale, self.v)
        return self.wo(y), chunk

