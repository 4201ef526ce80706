"""The cache of a batch of sequences: keys and values of every layer and every loop depth.

    >>> cache = model.new_cache(batch=2, capacity=4096)
    >>> model.forward(prompt, cache=cache)              # appends
    >>> saved = cache.fork()                            # an independent copy
    >>> cache.truncate(cache.lengths - 3)               # drops the last three tokens of every row
    >>> beams = cache.fork(rows=[0, 0, 1])              # row 0 twice, then row 1

Of two kinds: `mythos_runtime.engine.row_cache.RowCache`, pages that the row graphs append to, where depths are filled
as they are needed; and `mythos_runtime.dense.DenseCache`, buffers for a graph that is the whole model and fills all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.ports import numpy_dtype, shape_of
from mythos_runtime.spec import LoopSpec


class Cache(ABC):
    """`batch` sequences of up to `capacity` tokens and `max_loops` loop depths. Not for several threads.

    Attributes:
        lengths: int64 [batch], tokens held per row. Change it through `truncate` and `reset`.

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
        self.spec, self.capacity, self.max_loops = spec, int(capacity), int(max_loops)
        self.lengths = np.zeros(int(batch), np.int64)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what is held."""

    @abstractmethod
    def fork(self, rows: Sequence[int] | np.ndarray | None = None) -> Cache:
        """An independent copy: of every row, or of `rows` in that order (a row may be named more than once).

        Raises:
            RequestError: a row does not exist, or none is named.
        """

    @abstractmethod
    def read(self) -> dict[str, np.ndarray]:
        """What is held, by cache group: [..., batch, longest, width], every depth, zeros behind a row's tokens.

        Before the batch stand the slots of a group around the loop, the loop depths of one inside, and its slots per
        loop where there are several.
        """

    @abstractmethod
    def write(self, entries: Mapping[str, np.ndarray], lengths: Sequence[int] | np.ndarray) -> None:
        """Hold this instead, as `read` gives it; row b's entries are the first `lengths[b]`.

        Raises:
            RequestError: a shape does not fit. CapacityError: there is no room. Nothing is changed then.
        """

    @abstractmethod
    def _cut(self, row: int, length: int) -> None:
        """Forget a row's tokens from `length` on."""

    # -- what both kinds do the same way ------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        lengths = ", ".join(map(str, self.lengths[:8])) + (", ..." if self.batch > 8 else "")
        return (
            f"{type(self).__name__}(batch={self.batch}, capacity={self.capacity}, max_loops={self.max_loops}, "
            f"lengths=[{lengths}], {self.nbytes / 2**20:.1f} MiB)"
        )

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
        for row, length in enumerate(wanted.tolist()):
            self._cut(row, length)
            self.lengths[row] = length

    def reset(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Empty every row, or only `rows` (RequestError where a row does not exist)."""
        for row in range(self.batch) if rows is None else self._rows(rows).tolist():
            self._cut(row, 0)
            self.lengths[row] = 0

    def _rows(self, rows: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.arange(self.batch)
        chosen = np.asarray(rows)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise RequestError(f"rows should be a list of row numbers, found {rows!r}")
        if chosen.min() < 0 or chosen.max() >= self.batch:
            raise RequestError(f"the cache has rows 0 to {self.batch - 1}, asked for {rows!r}")
        return chosen

    def _entries(self, entries: Mapping[str, np.ndarray], lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Check what is to be written; the lengths, int64 [batch]."""
        counts = np.asarray(lengths)
        if counts.shape != (self.batch,) or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise RequestError(f"lengths should be {self.batch} integers of at least 0, found {lengths!r}")
        if counts.max() > self.capacity:
            raise CapacityError(f"{counts.max()} tokens exceed the cache's capacity of {self.capacity}")
        shapes = past_shapes(self.spec, self.batch, int(counts.max()), self.max_loops)
        if set(entries) != set(shapes):
            raise RequestError(f"entries should be of {', '.join(sorted(shapes))}, found {', '.join(sorted(entries))}")
        for name, (shape, _) in shapes.items():
            found = entries[name].shape
            fits = len(found) == len(shape) and found[-2] >= shape[-2]
            if not fits or (found[:-2], found[-1]) != (shape[:-2], shape[-1]):
                raise RequestError(f"entries of {name} have shape {list(found)}, expected {list(shape)}")
        return counts.astype(np.int64)


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
