"""How far apart two answers' logits are, in figures that people know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Logits:
    """How far the logits are off at the compared positions: absolute, relative L2, KL(truth || found) in nats."""

    max_abs: float
    p99_abs: float
    relative_l2: float
    kl: float
    top1_agreement: float


def logits_apart(found: np.ndarray, expected: np.ndarray, clean: np.ndarray) -> Logits | None:
    """Of [B, T, V] at the positions `clean` bool [B, T]; None where there is none, or something is not finite."""
    if not clean.any():
        return None
    f, e = found[clean].astype(np.float64), expected[clean].astype(np.float64)
    off = np.abs(f - e)
    if not np.isfinite(off).all():
        return None
    log_f, log_e = (x - _log_sum_exp(x) for x in (f, e))
    return Logits(
        float(off.max()),
        float(np.quantile(off, 0.99)),
        float(np.linalg.norm(f - e) / (np.linalg.norm(e) or 1.0)),
        float((np.exp(log_e) * (log_e - log_f)).sum(-1).mean()),
        float((f.argmax(-1) == e.argmax(-1)).mean()),
    )


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(-1, keepdims=True)
    total: np.ndarray = top + np.log(np.exp(x - top).sum(-1, keepdims=True))
    return total
