"""Prompts of random ids."""

from __future__ import annotations

import numpy as np

from mythos_runtime import Model


def prompts(model: Model, lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, model.spec.vocab_size, length).tolist() for length in lengths]
