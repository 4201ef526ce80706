"""The halting threshold with which a model runs every loop that it is given."""

from __future__ import annotations

import math

import numpy as np

from mythos_runtime.model import Model

_TOKENS = 4


def never(model: Model) -> float | None:
    """A halting threshold with which no token leaves before its last loop; None where the model has none.

    It is one end of the threshold's range, and which one depends on the rule: a sum never reaches the upper end, and a
    change (Huginn's rules) never falls below the lower one, while every token leaves at once at the other. A bundle
    does not say how its rule compares; so the model is asked for two loops of a few tokens, at both ends.
    """
    knob = model.spec.exit.knob("halt_threshold")
    if knob is None:
        return None
    ids = np.arange(min(_TOKENS, model.spec.vocab_size, model.spec.max_seq_len))

    def loops(threshold: float) -> int:
        return int(model.forward(ids, max_loops=2, halt_threshold=threshold).depth.sum())

    ends = (math.inf if knob.most is None else knob.most, -math.inf if knob.least is None else knob.least)
    return max(ends, key=loops)
