"""What a depth curve says: where it saturates, whether more loops do harm, and what to set.

Uncertainty comes from the bootstrap over inputs (Efron, 1979): the inputs are drawn anew with replacement, all
settings together, so that what inputs have in common does not count as noise between settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.depth.sweep import Setting, Sweep

DRAWS = 400
LEVEL = 0.95
NOTICEABLE = 0.01  # bits; a smaller difference does not matter, however certain it is


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap confidence interval at LEVEL."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Saturation:
    """loss(n) = floor + gain * exp(-n / scale), least squares over the loop budgets n.

    Attributes:
        floor: loss with no limit on loops, bits; at least 0, as every loss.
        gain: bits.
        scale: loops over which what is left to gain falls to 1/e.
        explained: share of the curve's variance that the fit explains; where it is low, the curve is none of these.
        left: what the fit still promises behind the deepest budget, bits: where it is much, nothing has saturated.
        failed: share of the bootstrap's draws whose fit did not converge.
    """

    floor: Interval
    gain: Interval
    scale: Interval
    explained: float
    left: float
    failed: float


@dataclass(frozen=True)
class Overthinking:
    """Whether loss rises again behind its best setting (the V of models trained at one depth).

    The best setting is chosen on half of the inputs and judged on the other half: the smallest of many noisy numbers
    would else look better than it is.
    """

    best: float  # value of the knob
    rise: Interval  # bits, loss at the last setting minus loss at the best one
    found: bool


@dataclass(frozen=True)
class Recommendation:
    """The best setting within a time budget; all None where even the cheapest exceeds it."""

    budget_ms: float
    setting: Setting | None
    loss: float | None
    milliseconds: float | None
    cheapest_ms: float


def mean_with_interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Of values [Q]."""
    means = values[_draws(len(values), seed)].mean(1)
    return Interval(float(values.mean()), *_bounds(means))


def saturation(loops: np.ndarray, loss: np.ndarray, seed: int = 0) -> Saturation:
    """Fit the curve of loop budgets [S] and losses [S, Q].

    Raises:
        RuntimeError: the mean curve itself cannot be fitted.
    """
    mean = loss.mean(1)
    best = _fit(loops, mean, None)
    residual = mean - _saturating(loops, *best)
    explained = 1 - float(residual @ residual) / max(float(((mean - mean.mean()) ** 2).sum()), 1e-30)
    fits = []
    draws = _draws(loss.shape[1], seed)
    for draw in draws:
        try:
            fits.append(_fit(loops, loss[:, draw].mean(1), best))
        except RuntimeError:  # did not converge: counted, and reported as `failed`
            continue
    floor, gain, scale = (
        Interval(float(value), *_bounds(column)) for value, column in zip(best, np.array(fits).T, strict=True)
    )
    left = gain.value * float(np.exp(-loops[-1] / scale.value))
    return Saturation(floor, gain, scale, explained, left, 1 - len(fits) / len(draws))


def overthinking(values: np.ndarray, loss: np.ndarray, seed: int = 0) -> Overthinking:
    """Of a knob's values [S] in rising order and the losses [S, Q]."""
    best = int(loss[:, ::2].mean(1).argmin())
    rise = mean_with_interval(loss[-1, 1::2] - loss[best, 1::2], seed)
    return Overthinking(float(values[best]), rise, rise.low > 0 and rise.value > NOTICEABLE)


def recommend(measured: Sweep, budget_ms: float) -> Recommendation:
    """The setting of least loss whose mean time keeps the budget; among equals the cheapest.

    Equal is what is known to differ by less than NOTICEABLE: the paired difference and two of its standard errors.
    """
    milliseconds = 1e3 * measured.seconds.mean(1)
    within = np.flatnonzero(milliseconds <= budget_ms)
    cheapest = float(milliseconds.min())
    if not len(within):
        return Recommendation(budget_ms, None, None, None, cheapest)
    best = within[measured.loss[within].mean(1).argmin()]
    gap = measured.loss[within] - measured.loss[best]
    error = gap.std(1) / np.sqrt(gap.shape[1])
    equal = within[gap.mean(1) + 2 * error <= NOTICEABLE]
    # By loops first: their number is exact, time is not.
    chosen = min(equal, key=lambda one: (round(float(measured.loops[one].mean()), 2), measured.settings[one].max_loops))
    loss, cost = float(measured.loss[chosen].mean()), float(milliseconds[chosen])
    return Recommendation(budget_ms, measured.settings[chosen], loss, cost, cheapest)


def _saturating(n: np.ndarray, floor: float, gain: float, scale: float) -> np.ndarray:
    return floor + gain * np.exp(-n / scale)


def _fit(loops: np.ndarray, loss: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    if start is None:
        start = np.array([loss[-1], max(loss[0] - loss[-1], 1e-3), len(loops) / 4])
    bounds = ([0.0, -np.inf, 0.05], [np.inf, np.inf, 20.0 * len(loops)])
    start = np.clip(start, bounds[0], bounds[1])
    found, _covariance = curve_fit(_saturating, loops, loss, p0=start, bounds=bounds, max_nfev=2000)
    return np.asarray(found)


def _draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (DRAWS, count))


def _bounds(values: np.ndarray) -> tuple[float, float]:
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)
