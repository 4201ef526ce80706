"""How far a stage may be off, as data; `measure.py` makes it.

There are no constants of taste, but for where a measure ends to be one (`judgement.py`). Every tensor has its own
tolerance, for every iteration of the loop and every line of a cache; and the distance from a tie below which a decision
may fall either way is measured likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_model.formats import ROUNDED
from mythos_runtime.manifest import MIXED

FACTOR = 8.0  # other kernels add in another order; this many times eager's own error is still the same function
MOVED = 2.0  # two that round activations alike may differ by this many times what rounding them moves
MOVED_LINES = 3.0  # the same of cache lines, where rounding is seen itself: by half a step, at a tie by a whole one
FLOOR_ULPS = 2.0  # an error below what the precision resolves says nothing
EPSILON = {"fp16": 2.0**-10, "bf16": 2.0**-7, **dict.fromkeys(("fp32", MIXED, *ROUNDED), 2.0**-23)}


@dataclass(frozen=True)
class Tolerances:
    """Allowed errors, relative to each tensor's scale; series as `Comparison.errors` has them.

    Attributes:
        precision: as the manifest has it.
        tensors: by tensor, the allowed error per iteration or line.
        bands: by decision (choices after halting by themselves), how near a tie counts as one, per iteration; in scores
            for a choice, in the tensor that decides for halting.
    """

    precision: str
    tensors: Mapping[str, tuple[float, ...]]
    bands: Mapping[str, tuple[float, ...]]

    def of(self, tensor: str, index: int) -> float:
        """The allowed error of a tensor; beyond what was measured, the last value holds."""
        return _at(self.tensors.get(tensor) or (FLOOR_ULPS * EPSILON[self.precision],), index)

    def band(self, decision: str, iteration: int) -> float:
        """The near-tie band; 0 for a count, which only follows from decisions."""
        return _at(self.bands[decision], iteration) if decision in self.bands else 0.0

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


def _larger(a: Mapping[str, tuple[float, ...]], b: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    length = {name: max(len(a.get(name, ())), len(b.get(name, ()))) for name in (*a, *b)}
    return {
        name: tuple(max(_at(side[name], i) for side in (a, b) if name in side) for i in range(count))
        for name, count in length.items()
    }


def _at(series: tuple[float, ...], index: int) -> float:
    return series[min(index, len(series) - 1)]
