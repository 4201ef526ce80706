"""Logarithms of probabilities, of the model's own distribution: before temperature, penalties and cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenLogprobs:
    """Of a chosen token, and of the likeliest: (id, logprob), likeliest first, the lower id first among equals."""

    chosen: float
    top: tuple[tuple[int, float], ...]


def token_logprobs(logits: np.ndarray, token: int, count: int) -> TokenLogprobs:
    """Of float32 logits [V], with `count` of the likeliest."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    scores -= np.log(np.exp(scores).sum())
    count = min(count, len(scores))
    if not count:
        return TokenLogprobs(float(scores[token]), ())
    bound = np.partition(scores, len(scores) - count)[len(scores) - count]
    reach = np.flatnonzero(scores >= bound)  # ties included
    top = reach[np.argsort(-scores[reach], kind="stable")][:count]
    return TokenLogprobs(float(scores[token]), tuple((int(each), float(scores[each])) for each in top))
