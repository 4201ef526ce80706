"""How the error of the state grows from iteration to iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Growth:
    """The error of a tensor of the loop's state in a stage's deepest case, per iteration, and the fit
    error ~ first * factor^iteration. A factor below 1 means that the loop forgets its errors."""

    tensor: str
    case: str
    errors: tuple[float, ...]
    factor: float | None


def fit(tensor: str, case: str, errors: Sequence[float]) -> Growth:
    """Least squares on the logarithms; no factor with fewer than three iterations that have an error."""
    points = [(index, math.log(error)) for index, error in enumerate(errors) if 0 < error < math.inf]
    factor = None
    if len(points) >= 3:
        x, y = np.array(points).T
        factor = math.exp(float(np.polyfit(x, y, 1)[0]))
    return Growth(tensor, case, tuple(errors), factor)
