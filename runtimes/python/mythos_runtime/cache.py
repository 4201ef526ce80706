"""The cache of a batch of sequences: keys and values of every layer and every loop depth, in preallocated buffers.

    >>> cache = model.new_cache(batch=2, capacity=4096)
    >>> model.forward(prompt, cache=cache)              # appends
    >>> saved = cache.fork()                            # an independent copy
    >>> cache.truncate(cache.lengths - 3)               # drops the last three tokens of every row
    >>> beams = cache.fork(rows=[0, 0, 1])              # row 0 twice, then row 1

The graph only reads the buffers, and reads them where they lie; new tokens are written behind the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.ports import numpy_dtype, shape_of
from mythos_runtime.spec import LoopSpec

Policy = Literal["full", "last"]
POLICIES: tuple[Policy, ...] = ("full", "last")


def past_shapes(spec: LoopSpec, batch: int, capacity: int, max_loops: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and element type of the past by cache group; one depth is there even where no loop runs."""
    symbols = {"B": batch, "P": capacity, "N": max(max_loops, 1)}
    ports = [spec.ports.of("past", group.name) for group in spec.caches]
    return {str(port.group): (shape_of(port, symbols), port.dtype) for port in ports}


def empty_past(spec: LoopSpec, batch: int, capacity: int = 0, max_loops: int | None = None) -> dict[str, np.ndarray]:
    """A past that holds nothing, by cache group: zeros, since a masked NaN would still poison softmax * values."""
    loops = spec.trained_loops if max_loops is None else max_loops
    shapes = past_shapes(spec, batch, capacity, loops)
    return {name: np.zeros(shape, numpy_dtype(dtype)) for name, (shape, dtype) in shapes.items()}


class Cache:
    """Buffers for `batch` sequences of up to `capacity` tokens and `max_loops` loop depths.

    Attributes:
        past: by cache group, [..., batch, capacity, width]; before the batch stand the slots of a group around the
            loop, the loop depths of one inside, and its slots per loop where there are several.
        lengths: int64 [batch], tokens held per row. Change it through `truncate` and `reset`.
        exact: whether every entry is what the reference computes. The policy `last` makes it False when it leaves the
            loop early, because the deeper entries are then copies.

    Raises:
        CapacityError: capacity exceeds the model's max_seq_len, or the memory for it is not there.
        RequestError: a size is not a positive integer.
    """

    def __init__(self, batch: int, capacity: int, spec: LoopSpec, max_loops: int | None = None) -> None:
        max_loops = spec.trained_loops if max_loops is None else max_loops
        for name, value, least in (("batch", batch, 1), ("capacity", capacity, 1), ("max_loops", max_loops, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise RequestError(f"a cache's {name} should be an integer of at least {least}, found {value!r}")
        if capacity > spec.max_seq_len:
            raise CapacityError(
                f"a capacity of {capacity} tokens exceeds the {spec.max_seq_len} that this model takes (max_seq_len)"
            )
        self.spec, self.max_loops = spec, int(max_loops)
        try:
            self.past = empty_past(spec, int(batch), int(capacity), self.max_loops)
        except (MemoryError, ValueError) as error:  # ValueError: larger than any array may be
            shapes = past_shapes(spec, int(batch), int(capacity), self.max_loops)
            size = sum(math.prod(shape) * numpy_dtype(dtype).itemsize for shape, dtype in shapes.values())
            raise CapacityError(
                f"a cache for {batch} x {capacity} tokens at {max(self.max_loops, 1)} loop depths needs "
                f"{size / 2**30:.1f} GiB, which this machine does not give ({error}); ask for less capacity, fewer "
                "rows or fewer max_loops"
            ) from error
        self.lengths = np.zeros(int(batch), np.int64)
        self.exact = True

    # -- sizes --------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return next(iter(self.past.values())).shape[-2]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, used or not."""
        return sum(buffer.nbytes for buffer in self.past.values())

    def __repr__(self) -> str:
        lengths = ", ".join(map(str, self.lengths[:8])) + (", ..." if self.batch > 8 else "")
        return (
            f"Cache(batch={self.batch}, capacity={self.capacity}, max_loops={self.max_loops}, lengths=[{lengths}], "
            f"{self.nbytes / 2**20:.1f} MiB, {'exact' if self.exact else 'approximate'})"
        )

    # -- writing ------------------------------------------------------------------------------------------------------

    def check_room(self, counts: np.ndarray) -> None:
        """CapacityError where a row cannot take `counts[row]` more tokens. Nothing is written."""
        stops = self.lengths + counts
        if (stops > self.capacity).any():
            row = int(np.argmax(stops > self.capacity))
            limit = "also the model's max_seq_len" if self.capacity == self.spec.max_seq_len else "its capacity"
            raise CapacityError(
                f"row {row} of the cache holds {self.lengths[row]} tokens and cannot take {counts[row]} more: it has "
                f"room for {self.capacity} ({limit}); truncate it, or make a larger one with new_cache"
            )

    def append(self, new: Mapping[str, np.ndarray], valid: np.ndarray) -> None:
        """Write the valid tokens of a chunk behind each row's tokens, in place.

        Args:
            new: by cache group, [..., batch, T, width].
            valid: bool [batch, T]; False marks padding, which is skipped.

        Raises:
            CapacityError: a row has no room; nothing was written then.
            RequestError: a shape does not fit.
        """
        tokens = valid.shape[-1]
        pairs = [(self.past[name], new[name]) for name in self.past]
        for name, (past, chunk) in zip(self.past, pairs, strict=True):
            expected = (*past.shape[:-2], tokens, past.shape[-1])
            if chunk.shape != expected:
                raise RequestError(f"new entries of {name} have shape {list(chunk.shape)}, expected {list(expected)}")
        start, *others = self.lengths.tolist()
        stop = start + tokens
        if stop <= self.capacity and others == [start] * len(others) and valid.all():
            # The usual step: one write for the whole batch.
            for past, chunk in pairs:
                past[..., start:stop, :] = chunk
            self.lengths += tokens
            return
        counts = valid.sum(axis=1)
        self.check_room(counts)
        for row in np.flatnonzero(counts):
            start, stop, keep = self.lengths[row], self.lengths[row] + counts[row], valid[row]
            for past, chunk in pairs:
                past[..., row, start:stop, :] = chunk[..., row, keep, :]
        self.lengths += counts

    # -- for beams and speculation ------------------------------------------------------------------------------------

    def fork(self, rows: Sequence[int] | np.ndarray | None = None) -> Cache:
        """An independent copy: of every row, or of `rows` in that order (a row may be named more than once).

        Raises:
            RequestError: a row does not exist, or none is named.
        """
        chosen = np.arange(self.batch) if rows is None else self._rows(rows)
        copy = Cache(len(chosen), self.capacity, self.spec, self.max_loops)
        used = int(self.lengths[chosen].max())
        for name, past in self.past.items():
            copy.past[name][..., :used, :] = past[..., chosen, :used, :]
        copy.lengths[:] = self.lengths[chosen]
        copy.exact = self.exact
        return copy

    def truncate(self, lengths: int | Sequence[int] | np.ndarray) -> None:
        """Keep only the first `lengths` tokens: one number for all rows, or one per row.

        Raises:
            RequestError: a length is negative, or larger than what the row holds; nothing is changed then.
        """
        wanted = np.asarray(lengths)
        if wanted.dtype.kind not in "iu" or wanted.shape not in ((), (self.batch,)):
            raise RequestError(f"truncate takes an integer or {self.batch} of them, one per row, found {lengths!r}")
        wanted = np.broadcast_to(wanted, (self.batch,))
        wrong = np.flatnonzero((wanted < 0) | (wanted > self.lengths))
        if wrong.size:
            row = int(wrong[0])
            raise RequestError(f"row {row} holds {self.lengths[row]} tokens and cannot be truncated to {wanted[row]}")
        self.lengths[:] = wanted
        self._forget_approximation()

    def reset(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Empty every row, or only `rows` (RequestError where a row does not exist)."""
        self.lengths[... if rows is None else self._rows(rows)] = 0
        self._forget_approximation()

    def _forget_approximation(self) -> None:
        self.exact = self.exact or not self.lengths.any()

    def _rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = np.asarray(rows)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise RequestError(f"rows should be a list of row numbers, found {rows!r}")
        if chosen.min() < 0 or chosen.max() >= self.batch:
            raise RequestError(f"the cache has rows 0 to {self.batch - 1}, asked for {rows!r}")
        return chosen
