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
    """Fixed buffers [..., B, capacity, width] by cache group, and how far each row is filled, int64 [B]."""

    spec: LoopSpec
    buffers: dict[str, np.ndarray]
    lengths: np.ndarray

    @classmethod
    def empty(cls, spec: LoopSpec, batch: int, capacity: int, loops: int) -> Past:
        return cls(spec, empty_past(spec, batch, capacity, loops), np.zeros(batch, np.int64))

    @classmethod
    def made_up(
        cls,
        spec: LoopSpec,
        entries: Mapping[str, np.ndarray],
        lengths: Sequence[int],
        capacity: int,
        loops: int,
        rng: np.random.Generator,
    ) -> Past:
        """A past of any length for the price of its memory: entries that a call made ([..., 1, T, width] by group), in
        any order, and NaN behind them. Depths that the call did not run repeat its last one."""
        past = cls(spec, empty_past(spec, len(lengths), capacity, loops), np.array(lengths, np.int64))
        for group in spec.caches:
            buffer, made = past.buffers[group.name], entries[group.name]
            if group.per_loop:
                made = made[np.minimum(np.arange(len(buffer)), len(made) - 1)]
            for row, length in enumerate(lengths):
                buffer[..., row, :length, :] = made[..., 0, rng.integers(made.shape[-2], size=length), :]
                buffer[..., row, length:, :] = np.nan
        return past

    def inputs(
        self,
        ids: np.ndarray,
        real: Sequence[int] | np.ndarray,
        loops: int | None = None,
        threshold: float | None = None,
        early_exit: bool = True,
        ahead: int | Sequence[int] = 0,
    ) -> dict[str, np.ndarray]:
        """A call's inputs by port.

        Args:
            ids: int64 [B, T].
            real: bool [B, T], which of them are no padding; or how many of a row's first ones are, [B].
            loops, threshold: the model's own by default.
            ahead: by how much a row's positions are larger than its past is long, [B].
        """
        spec, real = self.spec, np.asarray(real)
        if real.ndim == 1:
            real = np.arange(ids.shape[1]) < real[:, None]
        knob = spec.exit.knob("halt_threshold")
        if threshold is None:
            threshold = knob.default if knob is not None else 0.0
        first = np.broadcast_to(self.lengths + np.asarray(ahead), self.lengths.shape)
        values = {
            "ids": np.where(real, ids, 0),
            "positions": np.where(real, first[:, None] + real.cumsum(1) - 1, -1),
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
