"""Rotary halves and adjacent pairs: most checkpoints rotate channel i of a head with channel i + d/2, every model here
channel 2i with 2i + 1. Attention does not mind the order of a head's channels, so rows of queries and keys are moved
once, when the checkpoint is read."""

from __future__ import annotations

import torch
from torch import Tensor

FREQUENCIES = "model.*rotary_emb.inv_freq"  # which re-saved folders of such models hold: recomputed, never loaded


def to_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key projection [heads * d, D]: row 2i of a head is the old i, row 2i + 1 the old i + d/2."""
    return _ordered(weight, torch.arange(head_dim).view(2, -1).T.flatten())


def to_halves(weight: Tensor, head_dim: int) -> Tensor:
    """The way back."""
    return _ordered(weight, torch.arange(head_dim).view(-1, 2).T.flatten())


def _ordered(weight: Tensor, index: Tensor) -> Tensor:
    ordered: Tensor = weight.unflatten(0, (-1, len(index)))[:, index].flatten(0, 1)
    return ordered
