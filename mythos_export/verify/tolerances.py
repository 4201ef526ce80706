"""How far a stage may be off, measured: what eager PyTorch at the same precision errs against float64, times FACTOR.

There are no constants of taste, but for where a measure ends to be one, MOST_TOLERANCE. Every tensor has its own
tolerance, for every iteration of the loop, every layer of the cache and every depth; and the distance from a tie below
which a decision may fall either way is measured likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mythos_export.verify.trace import AFTER_HALTING

if TYPE_CHECKING:
    from mythos_export.verify.compare import Comparison
    from mythos_export.verify.truth import Asked

FACTOR = 8.0  # other kernels add in another order; this many times eager's own error is still the same function
MOST_TOLERANCE = 0.5  # of a tensor's scale; where eager's own error asks for more, the precision is no check
FLOOR_ULPS = 2.0  # an error below what the precision resolves says nothing
EPSILON = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 2.0**-23, "int4": 2.0**-23}


@dataclass(frozen=True)
class Tolerances:
    """Allowed errors, relative to each tensor's scale; series as `Comparison.errors` has them.

    Attributes:
        precision: fp32, fp16, bf16, int8 or int4.
        tensors: by tensor, the allowed error per iteration, layer or depth.
        bands: by decision (`experts` before and after halting, `halted`), how near a tie counts as one, per iteration;
            in routing logits and in summed probability.
    """

    precision: str
    tensors: Mapping[str, tuple[float, ...]]
    bands: Mapping[str, tuple[float, ...]]

    def of(self, tensor: str, index: int) -> float:
        """The allowed error of a tensor; beyond what was measured, the last value holds."""
        return _at(self.tensors.get(tensor) or (FLOOR_ULPS * EPSILON[self.precision],), index)

    def band(self, decision: str, iteration: int) -> float:
        """The near-tie band; 0 for `depth`, which only follows from other decisions."""
        return _at(self.bands[decision], iteration) if decision in self.bands else 0.0

    def too_coarse(self) -> tuple[str, float] | None:
        """The tensor that is allowed to be off the most, and by how much, where that is more than MOST_TOLERANCE.

        Not `new_loop`: it also holds the entries of positions that have halted, whose state no output of their own
        depends on and no precision follows. Where another position reads them, what it makes of them is judged.
        """
        judged = {name: max(series) for name, series in self.tensors.items() if name != "new_loop"}
        largest = {name: allowed for name, allowed in judged.items() if allowed > MOST_TOLERANCE}
        return max(largest.items(), key=lambda each: each[1], default=None)

    def merged(self, other: Tolerances) -> Tolerances:
        """The larger of both, everywhere."""
        return Tolerances(self.precision, _larger(self.tensors, other.tensors), _larger(self.bands, other.bands))

    def to_json(self) -> dict[str, Any]:
        return {
            "factor": FACTOR,
            "floor": FLOOR_ULPS * EPSILON[self.precision],
            "tensors": {name: list(series) for name, series in self.tensors.items()},
            "near_tie_bands": {name: list(series) for name, series in self.bands.items()},
        }

    @classmethod
    def from_json(cls, precision: str, data: Mapping[str, Any]) -> Tolerances:
        return cls(
            precision,
            {name: tuple(series) for name, series in data["tensors"].items()},
            {name: tuple(series) for name, series in data["near_tie_bands"].items()},
        )


def measure(asked: Iterable[Asked], comparisons: Iterable[Comparison], precision: str) -> Tolerances:
    """From eager's comparisons with the truth (`compare` without tolerances). Errors add up over the iterations, so a
    later one is allowed no less than an earlier one."""
    floor = FLOOR_ULPS * EPSILON[precision]
    errors: dict[str, list[float]] = {}
    bands: dict[str, list[float]] = {"experts": [], AFTER_HALTING: [], "halted": []}
    for item, comparison in zip(asked, comparisons, strict=True):
        for name, series in comparison.errors.items():
            _raise_to(errors.setdefault(name, []), series)
        for kind, errors_of in _routing_errors(item, comparison).items():
            _raise_to(bands[kind], errors_of)
        _raise_to(bands["halted"], comparison.errors.get("cumulative", []))
    return Tolerances(precision, _finish(errors, floor), _finish(bands, floor))


def _routing_errors(item: Asked, comparison: Comparison) -> dict[str, list[float]]:
    """Largest error of the routing logits per iteration, of positions whose decisions were still those of float64."""
    until = np.full(comparison.clean.shape, len(item.routing_error))
    until[~item.case.real] = 0
    for tie in comparison.near_ties:
        # The turning iteration itself counts: this error is what turned it.
        until[tie.row, tie.token] = min(until[tie.row, tie.token], tie.iteration)
        until[tie.row, tie.token + 1 :] = np.minimum(until[tie.row, tie.token + 1 :], tie.iteration - 1)
    found: dict[str, list[float]] = {"experts": [], AFTER_HALTING: []}
    running = item.case.real
    for iteration, error in enumerate(item.routing_error):
        same = until > iteration
        found["experts"].append(float(error[same & running].max(initial=0.0)))
        found[AFTER_HALTING].append(float(error[same & ~running].max(initial=0.0)))
        running = ~item.case.trace.halted[iteration]
    return found


def _finish(series: Mapping[str, list[float]], floor: float) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(float(max(floor, FACTOR * error)) for error in np.maximum.accumulate(values or [0.0]))
        for name, values in series.items()
    }


def _raise_to(values: list[float], least: Iterable[float]) -> None:
    for index, value in enumerate(least):
        if index == len(values):
            values.append(value)
        values[index] = max(values[index], value)


def _larger(a: Mapping[str, tuple[float, ...]], b: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    length = {name: max(len(a.get(name, ())), len(b.get(name, ()))) for name in (*a, *b)}
    return {
        name: tuple(max(_at(side[name], i) for side in (a, b) if name in side) for i in range(count))
        for name, count in length.items()
    }


def _at(series: tuple[float, ...], index: int) -> float:
    return series[min(index, len(series) - 1)]
