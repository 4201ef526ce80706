"""Cost against depth: a straight line, its fixed part and its part per loop, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mythos_export.bench.statistics import Interval, median_interval


@dataclass(frozen=True)
class DepthLine:
    """seconds = fixed + per_loop * loops.

    Attributes:
        points: (loops, median seconds), as measured.
        misfit: the largest distance of a point from the line, relative to the point: whether it is a line at all.
    """

    fixed: Interval
    per_loop: Interval
    points: tuple[tuple[int, float], ...]
    misfit: float


def fit(rounds: Mapping[int, Sequence[float]]) -> DepthLine | None:
    """Least squares through each round's medians (loops -> seconds, round by round), then the median over the rounds.

    Relative errors are what timing has, so points weigh by the inverse of their value. None below three depths.
    """
    if len(rounds) < 3:
        return None
    depths = np.array(sorted(rounds), float)
    count = min(len(values) for values in rounds.values())
    fixed, slope = [], []
    for number in range(count):
        seconds = np.array([rounds[int(depth)][number] for depth in depths])
        per_loop, intercept = np.polyfit(depths, seconds, 1, w=1 / seconds)
        slope.append(float(per_loop))
        fixed.append(float(intercept))
    medians = [float(np.median(rounds[int(depth)][:count])) for depth in depths]
    line = median_interval(fixed), median_interval(slope)
    misfit = max(abs(line[0].median + line[1].median * d - m) / m for d, m in zip(depths, medians, strict=True))
    return DepthLine(*line, tuple((int(d), m) for d, m in zip(depths, medians, strict=True)), misfit)
