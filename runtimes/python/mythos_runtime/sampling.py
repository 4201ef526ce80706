"""How the next token is chosen. Specified to the last step, so that another runtime draws the same tokens.

Per row and step, all in IEEE float64 unless said otherwise:

1. z[i] = the row's float32 logits, widened. A NaN, or a largest logit that is infinite, is an error.
2. Repetition penalty r (off at 1): for every id that occurs in the row's prompt or in what it generated so far,
   z[i] = z[i] / r where z[i] > 0, else z[i] * r.
3. Temperature 0: the answer is the lowest id with the largest z. No random number is drawn.
4. d[i] = (z[i] - max z) / temperature.
5. Sort the ids by d, largest first, the lower id first among equals. Top-k (off at 0): keep the first k.
6. w = exp(d), so the first weight is 1. c = running sums of w from the first on; total = the last of c.
7. Top-p (off at 1): keep the shortest prefix whose running sum is >= top_p * total.
8. Min-p (off at 0): of these keep the ones with w >= min_p.
9. Draw u (below); t = u * (running sum at the last one kept); the answer is the first id whose running sum is > t,
   or the last one kept where rounding leaves none.

Random numbers: SplitMix64, one generator per row, arithmetic modulo 2^64:

    G = 0x9E3779B97F4A7C15
    mix(x): x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9; x = (x ^ (x >> 27)) * 0x94D049BB133111EB; return x ^ (x >> 31)
    state of row r at the start: mix(seed + (r + 1) * G)
    next(): state = state + G; return mix(state)
    u = (next() >> 11) * 2^-53, in [0, 1)

A row draws once per token that it generates, never for another row's, so row r of a batch does not depend on the
others. Known answers: seed 0, row 0 starts at state 0xE220A8397B1DCDAF.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np

from mythos_runtime.batch import integer, number
from mythos_runtime.errors import RequestError, ResultError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PENALTY_RANGE = (1e-6, 1e6)  # keeps float32 logits finite in float64, whatever their size


@dataclass(frozen=True)
class SamplingOptions:
    """The knobs of the choice; the defaults are greedy. Raises RequestError where one is out of range."""

    temperature: float = 0.0  # >= 0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # in (0, 1]; 1: off
    min_p: float = 0.0  # in [0, 1]; 0: off
    repetition_penalty: float = 1.0  # > 0; 1: off
    seed: int = 0  # 0 <= seed < 2^64

    def __post_init__(self) -> None:
        least, most = _PENALTY_RANGE
        if number(self.temperature, "temperature") < 0:
            raise RequestError(f"temperature should not be negative, found {self.temperature}")
        if not 0 < number(self.top_p, "top_p") <= 1:
            raise RequestError(f"top_p should be above 0 and at most 1, found {self.top_p}")
        if not 0 <= number(self.min_p, "min_p") <= 1:
            raise RequestError(f"min_p should be from 0 to 1, found {self.min_p}")
        if not least <= number(self.repetition_penalty, "repetition_penalty") <= most:
            raise RequestError(
                f"repetition_penalty should be from {least:g} to {most:g}, found {self.repetition_penalty}"
            )
        integer(self.top_k, "top_k", 0)
        integer(self.seed, "seed", 0, _MASK)


class SplitMix64:
    """The random numbers of one row; see the module's docstring."""

    def __init__(self, seed: int, row: int = 0) -> None:
        self.state = _mix((seed + (row + 1) * _GOLDEN) & _MASK)

    def next(self) -> int:
        """A 64-bit integer."""
        self.state = (self.state + _GOLDEN) & _MASK
        return _mix(self.state)

    def uniform(self) -> float:
        """A float64 in [0, 1) with 53 random bits."""
        return (self.next() >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Sampler:
    """Chooses the tokens of one row: holds its random numbers and the ids it has seen."""

    def __init__(self, options: SamplingOptions, row: int, vocab_size: int, prompt: np.ndarray) -> None:
        self.options = options
        self.random = SplitMix64(options.seed, row)
        self.seen = np.zeros(vocab_size, bool)
        self.seen[prompt] = True

    def copy(self) -> Sampler:
        """Another one that goes on from here by itself."""
        twin = copy.copy(self)
        twin.random, twin.seen = copy.copy(self.random), self.seen.copy()
        return twin

    def choose(self, logits: np.ndarray) -> int:
        """The next id for float32 logits [V]; it counts as seen from now on. Raises ResultError on NaN or infinity."""
        options = self.options
        if options.temperature == 0 and options.repetition_penalty == 1:
            token = int(np.argmax(logits))  # the first of the largest, or of NaN
            _check(logits[token])
            self.seen[token] = True
            return token
        scores = penalize(logits, self.seen, options.repetition_penalty)
        if options.temperature == 0:
            token = int(np.argmax(scores))
        else:
            ids, sums = candidates(scores, options)
            target = self.random.uniform() * sums[-1]
            token = int(ids[min(int(np.searchsorted(sums, target, side="right")), len(ids) - 1)])
        self.seen[token] = True
        return token


def _check(largest: np.floating) -> None:
    if not math.isfinite(largest):
        raise ResultError(f"the model's largest logit is {largest}: no token can be chosen; its results are broken")


def penalize(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Steps 1 and 2: float64 scores [V] of float32 logits [V], lowered where `seen` (bool [V])."""
    scores = logits.astype(np.float64)
    _check(scores.max())  # max passes a NaN on
    if penalty != 1:
        chosen = scores[seen]
        scores[seen] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return scores


def candidates(scores: np.ndarray, options: SamplingOptions) -> tuple[np.ndarray, np.ndarray]:
    """Steps 4 to 8: the ids that may be drawn, likeliest first, and the running sums of their weights."""
    ids = np.arange(len(scores))
    with np.errstate(over="ignore", invalid="ignore"):  # a tiny temperature sends the others to -inf, weight 0
        shifted = (scores - scores.max()) / options.temperature
    if 0 < options.top_k < len(scores):
        # Sort only what can be among the first k: all that reach the k-th largest value, ties included.
        bound = np.partition(shifted, len(scores) - options.top_k)[len(scores) - options.top_k]
        ids = ids[shifted >= bound]
        shifted = shifted[ids]
    order = np.argsort(-shifted, kind="stable")  # stable: the lower id first among equals
    if options.top_k:
        order = order[: options.top_k]
    weights = np.exp(shifted[order])
    sums = np.cumsum(weights)  # strictly one after the other, as the specification says
    keep = len(weights)
    if options.top_p < 1:
        keep = int(np.searchsorted(sums, options.top_p * sums[-1], side="left")) + 1
    if options.min_p > 0:
        keep = min(keep, int(np.count_nonzero(weights >= options.min_p)))
    return ids[order[:keep]], sums[:keep]
