"""A call's inputs, and the past that it reads and fills: what the runtimes keep as well, written a second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mythos_runtime.cache import empty_past
from mythos_runtime.noise import initial_state
from mythos_runtime.spec import LoopSpec


@dataclass
class Past:
    """Fixed buffers [lines, B, capacity, width] by cache group, and how far each row is filled, int64 [B]."""

    spec: LoopSpec
    buffers: dict[str, np.ndarray]
    lengths: np.ndarray

    @classmethod
    def empty(cls, spec: LoopSpec, batch: int, capacity: int, loops: int) -> Past:
        return cls(spec, empty_past(spec, batch, capacity, loops), np.zeros(batch, np.int64))

    def inputs(
        self,
        ids: np.ndarray,
        counts: Sequence[int],
        loops: int | None = None,
        threshold: float | None = None,
        early_exit: bool = True,
    ) -> dict[str, np.ndarray]:
        """A call's inputs by port; row b brings its first counts[b] of `ids` [B, T], the rest is padding.

        `loops` and `threshold` are the model's own by default.
        """
        spec, slot = self.spec, np.arange(ids.shape[1])
        real = slot < np.array(counts)[:, None]
        knob = spec.exit.knob("halt_threshold")
        if threshold is None:
            threshold = knob.default if knob is not None else 0.0
        values = {
            "ids": np.where(real, ids, 0),
            "positions": np.where(real, slot + self.lengths[:, None], -1),
            "past_lengths": self.lengths.copy(),
            "max_loops": np.array(spec.trained_loops if loops is None else loops),
            "halt_threshold": np.array(threshold, np.float32),
            "early_exit": np.array(early_exit),
        }
        if spec.initial is not None:
            values["initial_state"] = initial_state(spec.initial, values["positions"])
        return spec.ports.by_role(values, {name: buffer.copy() for name, buffer in self.buffers.items()})

    def append(self, outputs: Mapping[str, np.ndarray], counts: Sequence[int]) -> None:
        """Write a call's new entries behind the past."""
        for name, buffer in self.buffers.items():
            new = outputs[self.spec.ports.of("new", name).name]
            for row, count in enumerate(counts):
                at = int(self.lengths[row])
                buffer[..., row, at : at + count, :] = new[..., row, :count, :]
        self.lengths = self.lengths + np.array(counts, np.int64)
