"""What the operators' references share. Slow and plain on purpose: one token at a time, numpy, no masks.

A reference computes in the dtype it is given: float32 for what the operator means, float64 to judge the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def swiglu(x: Array, gate_up: Array, down: Array, seen: Callable[[Array], Array] = np.asarray) -> Array:
    """down(silu(gate x) * up x); x [..., D], gate_up [2F, D], down [D, F] -> [..., D]. Shazeer 2020, GLU variants.
    `seen` is what `down` is multiplied by of what comes before it."""
    gate, up = np.split(x @ gate_up.T, 2, axis=-1)
    return np.asarray(seen(gate / (1 + np.exp(-gate)) * up) @ down.T)


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(p / p.sum(-1, keepdims=True))


def visible(past: Array, layer: Array, chunk: Array, positions: Array, past_lengths: Array, b: int, t: int) -> Array:
    """The cache rows that token t of row b may attend to, [keys, C]: the filled past, then the chunk up to itself."""
    old = past[int(layer), b, : past_lengths[b]]
    seen = (positions[b] >= 0) & (positions[b] <= positions[b, t])
    return np.concatenate([old, chunk[b][seen]])
