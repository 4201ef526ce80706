"""Intervals cover what they say, without a normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

from mythos_export.bench.statistics import median_interval, percentiles, spread


@pytest.mark.parametrize("count", [6, 9, 20])
def test_the_interval_holds_the_true_median_as_often_as_it_says(count: int) -> None:
    """Of a skewed distribution, as times are: exp(normal), whose median is 1."""
    samples = np.exp(np.random.default_rng(0).standard_normal((2000, count)))
    intervals = [median_interval(row.tolist()) for row in samples]
    held = np.mean([interval.low <= 1 <= interval.high for interval in intervals])
    coverage = intervals[0].coverage
    assert coverage >= 0.95
    assert held == pytest.approx(coverage, abs=0.02)


def test_few_values_say_how_little_they_cover() -> None:
    three = median_interval([3.0, 1.0, 2.0])
    assert (three.low, three.median, three.high) == (1.0, 2.0, 3.0)
    assert three.coverage == pytest.approx(0.75)
    assert median_interval([1.0]).coverage == 0.0
    with pytest.raises(ValueError):
        median_interval([])


def test_one_outlier_moves_neither_median_nor_the_ends_much() -> None:
    values = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 50.0]
    interval = median_interval(values)
    assert interval.median == 1.04
    assert interval.high < 2  # nine values: the ends are the second and the eighth
    assert spread([1.0] * 9 + [100.0]) > spread([1.0] * 10) == 0


def test_the_99th_percentile_needs_a_hundred_calls() -> None:
    assert percentiles([1.0] * 99).p99 is None
    assert percentiles(list(range(101))).p99 == pytest.approx(99.0)
