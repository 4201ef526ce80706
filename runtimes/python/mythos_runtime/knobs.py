"""The exit rule's threshold: what a caller asks for, held against what the bundle says of it."""

from __future__ import annotations

import math

import numpy as np

from mythos_runtime.batch import number
from mythos_runtime.errors import RequestError
from mythos_runtime.spec import LoopSpec

_MOST = float(np.finfo(np.float32).max)


def halt_threshold(spec: LoopSpec, asked: float | None) -> float:
    """The finite float32 that a call runs with: what is asked for (infinite: never, or at once), or as trained; NaN
    where the model has none.

    Raises:
        RequestError: the model has no threshold, or not this one.
    """
    knob = spec.exit.knob("halt_threshold")
    if asked is None:
        return math.nan if knob is None else _finite(knob.default)
    if knob is None:
        raise RequestError(f"this model ({spec.family}) has no halt_threshold: {spec.exit.meaning}")
    infinite = isinstance(asked, float | np.floating) and math.isinf(asked)
    value = float(asked) if infinite else number(asked, "halt_threshold")
    low, high = knob.least, knob.most
    inside = (low is None or value >= low) and (high is None or value <= high)
    if not inside or (abs(value) > _MOST and not infinite):
        bounds = f"from {low if low is not None else '-inf'} to {high if high is not None else 'inf'}"
        raise RequestError(f"halt_threshold should be a float32 {bounds}, found {asked!r}")
    return _finite(value)


def _finite(value: float) -> float:
    """The nearest float32. To the graphs -inf means that a cap ends a row here, and other loops follow; no exit rule
    tells an infinite threshold from the largest finite one."""
    return float(np.float32(min(max(value, -_MOST), _MOST)))
