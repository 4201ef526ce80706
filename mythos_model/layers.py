"""Norm, rotary embedding and the dense feed-forward network."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model.ops import accumulation_dtype

RMS_EPS = 1e-6


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + 1e-6) * weight over the last axis; the mean is taken in float32 or better.

    The result has the weight's dtype, whatever x comes in: the loop keeps its state in float32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., dim]
        wide = x.to(torch.promote_types(x.dtype, accumulation_dtype(self.weight.dtype)))
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + RMS_EPS)
        return normed.to(self.weight.dtype) * self.weight


class Rotary(NamedTuple):
    """Cosines and sines of the rotary angles, [B, T, 1, P/2], computed from positions: no table, no maximum."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, width: int, theta: float, dtype: torch.dtype) -> Rotary:
        """Angles pos * theta^(-2i/width) for int64 positions [B, T], in float32 (float64 for a float64 model)."""
        exponent = torch.arange(0, width, 2, dtype=dtype, device=positions.device) / width
        angles = positions.to(dtype).unsqueeze(-1) * (theta**-exponent)
        angles = angles.unsqueeze(2)
        return cls(torch.cos(angles), torch.sin(angles))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate adjacent pairs (2i, 2i+1) of x [B, T, heads, P]."""
        even, odd = x.to(self.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([even * self.cos - odd * self.sin, even * self.sin + odd * self.cos], -1)
        return rotated.flatten(-2).to(x.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), the feed-forward network of prelude and coda."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        return self.down(F.silu(self.gate(x)) * self.up(x))
