"""A random initial state, drawn so that it depends on nothing but a seed and a position.

    >>> initial_state(spec.initial, positions, seed=7)         # positions int64 [B, T] -> float32 [B, T, S]

The generator is counter-based (Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the
numbers of a token are a function of (seed, position, channel), so they are the same alone, in a batch, and however a
prompt is cut into chunks. A normal number is the quantile of a uniform one, which also cuts the tails exactly.
"""

from __future__ import annotations

import math

import numpy as np

from mythos_runtime.spec import StateTensor

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


def initial_state(tensor: StateTensor, positions: np.ndarray, seed: int = 0) -> np.ndarray:
    """The state before the first loop.

    Args:
        tensor: of the spec; its last dim is S, `scale` the deviation before the tails are cut at `cut` of them.
        positions: int64 [B, T]; padding (-1) gets zeros.
        seed: any integer of 64 bits.

    Returns: float32 [B, T, S].
    """
    width, scale, cut = int(tensor.dims[-1]), tensor.scale or 0.0, tensor.cut
    state = np.zeros((*positions.shape, width), np.float32)
    real = positions >= 0
    if scale and real.any():
        state[real] = scale * _normal(_uniform(positions[real], width, seed), cut)
    return state


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: counters uint32 [..., 4] -> four random words for each, uint32 [..., 4]."""
    words = [counter[..., i].astype(np.uint64) for i in range(4)]
    low, high = key
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            (second >> _HALF) ^ words[1] ^ np.uint64(low),
            second & _LOW,
            (first >> _HALF) ^ words[3] ^ np.uint64(high),
            first & _LOW,
        ]
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return np.stack(words, -1).astype(np.uint32)


def _uniform(positions: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Numbers in (0, 1) of 24 bits each: int64 [n] -> float64 [n, width]."""
    blocks = -(-width // 4)
    counter = np.zeros((len(positions), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = (positions & 0xFFFFFFFF)[:, None]
    counter[..., 2] = (positions >> 32)[:, None]
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return ((words >> np.uint32(8)).astype(np.float64) + 0.5).reshape(len(positions), -1)[:, :width] / (1 << 24)


def _normal(uniform: np.ndarray, cut: float | None) -> np.ndarray:
    """Standard normal numbers, cut at +-`cut` where that is given: the quantiles of uniform ones, float64."""
    tail = 0.0 if cut is None else 0.5 * math.erfc(cut / math.sqrt(2))
    return _quantile(tail + uniform * (1 - 2 * tail))


# Wichura's algorithm AS 241 (1988): numerator and denominator of the quantile near the middle, and in the tails.
_MIDDLE = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125)
    + (45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077)
    + (21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)
_TAIL = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504)
    + (1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550)
    + (0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)


def _quantile(p: np.ndarray) -> np.ndarray:
    """Of the standard normal distribution, for p from about 1e-10 to 1 - 1e-10."""
    q = p - 0.5
    r = 0.180625 - q * q
    middle = q * _ratio(_MIDDLE, np.maximum(r, 0.0))
    edge = np.sqrt(-np.log(np.minimum(p, 1 - p)))
    tails = np.copysign(_ratio(_TAIL, edge - 1.6), q)
    found: np.ndarray = np.where(np.abs(q) <= 0.425, middle, tails)
    return found


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    top, bottom = (np.polynomial.polynomial.polyval(x, polynomial) for polynomial in polynomials)
    return np.asarray(top / bottom)
