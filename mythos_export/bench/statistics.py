"""Medians with intervals that hold without a normal distribution, and the test whether a run was quiet.

A figure is the median over rounds. A round restarts the processes and measures everything once, so that the spread of
the rounds holds what one process never sees: where its memory is, what the host does that minute. Calls of one round
are not independent, and no interval is made from them. (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time,
ISMM 2013.)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
DECIDES = 0.90  # of what covers less, nothing is said to be faster or slower: five rounds are needed


@dataclass(frozen=True)
class Interval:
    """A median and the interval that holds the true one with the probability `coverage` (order statistics)."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float]) -> Interval:
    """Between two order statistics of n independent values, the narrowest symmetric pair that covers 95 %.

    Below six values that is no pair; then lowest to highest is given with the coverage that it has: 1 - 2^(1-n).
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered, n = sorted(values), len(values)
    skip = 0
    while 2 * (skip + 1) < n and _coverage(n, skip + 1) >= CONFIDENCE:
        skip += 1
    return Interval(statistics.median(ordered), ordered[skip], ordered[n - 1 - skip], max(_coverage(n, skip), 0.0))


def _coverage(n: int, skip: int) -> float:
    """Probability that the median is between the order statistics `skip` and `n - 1 - skip`."""
    return float(1 - 2 * sum(math.comb(n, k) for k in range(skip + 1)) / 2**n)


def spread(values: Sequence[float]) -> float:
    """From the first to the ninth decile, relative to the median; 0 for a single value."""
    low, middle, high = np.percentile(values, (10, 50, 90))
    return float((high - low) / middle)


@dataclass(frozen=True)
class Percentiles:
    """Of all calls of a row, in seconds. The 99th needs a hundred calls, and is None below."""

    p50: float
    p90: float
    p99: float | None
    calls: int


def percentiles(seconds: Sequence[float]) -> Percentiles:
    p50, p90, p99 = (float(value) for value in np.percentile(seconds, (50, 90, 99)))
    return Percentiles(p50, p90, p99 if len(seconds) >= 100 else None, len(seconds))
