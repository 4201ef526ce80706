"""The learning rate over a run: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Factor on a peak learning rate (https://arxiv.org/abs/1608.03983, without restarts).

    Attributes:
        steps: optimizer steps of the whole run. Fixed before it starts, so that a resumed run follows the same curve.
        warmup: steps over which the factor rises from 0 to 1.
        floor: factor at the last step.
    """

    steps: int
    warmup: int = 100
    floor: float = 0.02

    def factor(self, step: int) -> float:
        """The factor of step 0 .. steps - 1."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        done = min(1.0, step / max(self.steps - 1, 1))
        return rising * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))
