"""Norm, rotary embedding and the dense feed-forward network."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model import ops


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv:1910.07467) over the last axis; see `mythos_model.ops.rms_norm`."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # [..., dim]
        norm = torch.ops.mythos.rms_norm if torch.compiler.is_exporting() else ops.rms_norm
        return norm(x, self.weight, self.eps)


class Rotary(NamedTuple):
    """Cosines and sines of the rotary angles, [B, T, P/2], computed from positions: no table, no maximum."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, width: int, theta: float, dtype: torch.dtype) -> Rotary:
        """Angles pos * theta^(-2i/width) for int64 positions [B, T], in float32 (float64 for a float64 model)."""
        exponent = torch.arange(0, width, 2, dtype=dtype, device=positions.device) / width
        angles = positions.to(dtype).unsqueeze(-1) * (theta**-exponent)
        return cls(torch.cos(angles), torch.sin(angles))

    def rotate(self, x: Tensor, heads: int) -> Tensor:
        """Rotate the heads of x [..., heads * P]; see `mythos_model.ops.rotary_embedding`."""
        rotate = torch.ops.mythos.rotary_embedding if torch.compiler.is_exporting() else ops.rotary_embedding
        return rotate(x, self.cos, self.sin, heads)


class Embedding(nn.Embedding):
    """Token embedding; its rows may also be the head's (`logits`)."""

    def logits(self, x: Tensor) -> Tensor:  # [..., dim] -> [..., vocab_size]
        return F.linear(x, self.weight)


def shape_logits(logits: Tensor, scale: float = 1.0, cap: float | None = None) -> Tensor:
    """Logits times `scale`, and, where there is a cap, pressed between -cap and cap: cap * tanh(logits / cap)."""
    if scale != 1.0:
        logits = logits * scale
    return logits if cap is None else cap * torch.tanh(logits / cap)


class Matrix(nn.Linear):
    """A matrix [out, in] that an operator is given as it is. No layer multiplies by it, and no format rounds it."""


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), the feed-forward network of prelude and coda."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        return self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]
