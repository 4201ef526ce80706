"""The cache of a graph that is the whole model: preallocated buffers, which it reads where they are (`stores`).

Every depth of every token is computed, so it is exact, and saves nothing by halting. For the backends that have no row
graphs to run (TensorRT, PyTorch, ONNX Runtime on CUDA); the others have `mythos_runtime.engine.row_cache`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mythos_runtime.cache import Cache, past_shapes
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.spec import LoopSpec
from mythos_runtime.stores import HOST, Store


class DenseCache(Cache):
    """See `Cache`.

    Attributes:
        past: by cache group, [..., batch, capacity, width], as the graph takes it.
        store: where that lies.
    """

    def __init__(
        self, batch: int, capacity: int, spec: LoopSpec, max_loops: int | None = None, store: Store = HOST
    ) -> None:
        super().__init__(batch, capacity, spec, max_loops)
        self.store = store
        shapes = past_shapes(spec, int(batch), self.capacity, self.max_loops)
        try:
            # Zeros, since a masked NaN would still poison softmax * values.
            self.past = {name: store.empty(shape, numpy_dtype(dtype)) for name, (shape, dtype) in shapes.items()}
        except (MemoryError, ValueError) as error:  # ValueError: larger than any array may be
            size = sum(math.prod(shape) * numpy_dtype(dtype).itemsize for shape, dtype in shapes.values())
            raise no_memory(batch, capacity, self.max_loops, size, error) from error

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.past.values())

    def append(self, new: Mapping[str, Any], valid: np.ndarray) -> None:
        """Write the valid tokens of a chunk behind each row's tokens, in place.

        Args:
            new: by cache group, [..., batch, T, width], of the store's kind.
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
                self.store.copy(past, chunk, None, (start, 0), tokens)
            self.store.settle()
            self.lengths += tokens
            return
        counts = valid.sum(axis=1)
        self.check_room(counts)
        for row in np.flatnonzero(counts).tolist():
            at = int(self.lengths[row])
            for first, count in _stretches(valid[row]):
                for past, chunk in pairs:
                    self.store.copy(past, chunk, (row, row), (at, first), count)
                at += count
        self.store.settle()
        self.lengths += counts

    def fork(self, rows: Sequence[int] | np.ndarray | None = None) -> DenseCache:
        chosen = self._rows(rows)
        copy = DenseCache(len(chosen), self.capacity, self.spec, self.max_loops, self.store)
        used = int(self.lengths[chosen].max())
        for name, past in self.past.items():
            for index, row in enumerate(chosen.tolist()):
                self.store.copy(copy.past[name], past, (index, row), (0, 0), used)
        self.store.settle()
        copy.lengths[:] = self.lengths[chosen]
        return copy

    def read(self) -> dict[str, np.ndarray]:
        held = np.arange(self.lengths.max()) < self.lengths[:, None]
        return {
            name: np.where(held[..., None], self.store.read(past, held.shape[1]), past.dtype.type(0))
            for name, past in self.past.items()
        }

    def write(self, entries: Mapping[str, np.ndarray], lengths: Sequence[int] | np.ndarray) -> None:
        counts = self._entries(entries, lengths)
        longest = int(counts.max())
        for name, past in self.past.items():
            self.store.write(past, entries[name][..., :longest, :])
        self.lengths[:] = counts

    def _cut(self, row: int, length: int) -> None:
        pass  # what stands behind a row's length is not read


def _stretches(valid: np.ndarray) -> list[tuple[int, int]]:
    """First index and length of every run of True."""
    edges = np.flatnonzero(np.diff(valid.astype(np.int8), prepend=0, append=0)).tolist()
    return [(first, end - first) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def no_memory(batch: int, capacity: int, max_loops: int, size: int, error: BaseException) -> CapacityError:
    """What to say where a cache of `size` bytes does not fit this machine."""
    return CapacityError(
        f"a cache for {batch} x {capacity} tokens at {max(max_loops, 1)} loop depths needs {size / 2**30:.1f} GiB, "
        f"which this machine does not give ({error}); ask for less capacity, fewer rows or fewer max_loops"
    )
