"""Fixed part and part per loop come back out of times that were made from them."""

from __future__ import annotations

import numpy as np
import pytest

from mythos_export.bench.depth_line import fit


def test_a_line_is_found_through_noise_and_its_interval_holds_the_truth() -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, (4, 7))
    rounds = {depth: ((0.004 + 0.001 * depth) * noise[i]).tolist() for i, depth in enumerate((1, 4, 8, 12))}
    line = fit(rounds)
    assert line is not None
    assert line.fixed.low <= 0.004 <= line.fixed.high and line.fixed.median == pytest.approx(0.004, rel=0.05)
    assert line.per_loop.low <= 0.001 <= line.per_loop.high and line.per_loop.median == pytest.approx(0.001, rel=0.05)
    assert line.misfit < 0.03


def test_what_is_no_line_says_so_and_two_depths_are_none() -> None:
    curve = fit({depth: [depth**2.0] * 3 for depth in (1, 4, 8)})
    assert curve is not None and curve.misfit > 0.3
    assert fit({1: [1.0], 2: [2.0]}) is None
