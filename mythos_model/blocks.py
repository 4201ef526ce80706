"""Norm, rotary embedding and the dense feed-forward network."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model import ops

_TURN = 1 << 64  # of an angle that is an integer


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
        """Of the angles pos * theta^(-2i/width), for int64 positions [B, T] of any size; `dtype` is float32 or float64.

        In float32 an angle of 10^6 is off by hundredths of a turn before its cosine is taken. So a turn is 2^64 there:
        int64 products lose whole turns, and nothing else. A float64 model, which others are held to, does without.
        """
        frequencies = [theta ** (-i / width) for i in range(0, width, 2)]
        if dtype == torch.float64:
            angles = positions.to(dtype).unsqueeze(-1) * torch.tensor(frequencies, dtype=dtype, device=positions.device)
        else:
            steps = [(round(each / math.tau * _TURN) + _TURN // 2) % _TURN - _TURN // 2 for each in frequencies]
            turns = positions.unsqueeze(-1) * torch.tensor(steps, device=positions.device)
            angles = turns.to(dtype) * (math.tau / _TURN)
        return cls(torch.cos(angles), torch.sin(angles))

    def plus(self, other: Rotary) -> Rotary:
        """Of the sums of both angles."""
        cos = self.cos * other.cos - self.sin * other.sin
        return Rotary(cos, self.sin * other.cos + self.cos * other.sin)

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
