"""Pages and states where ONNX Runtime runs the row graphs."""

from __future__ import annotations

import numpy as np

from mythos_runtime.engine.ort_device.lines import LineGraphs
from mythos_runtime.engine.ort_device.pools import Pool, Some
from mythos_runtime.engine.states import MirroredStates
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.spec import LoopSpec

_PAGE_LEADING = 3  # slots, pages and positions: a line is a position's


class OrtPlace:
    """Pages on a device; see `engine.pages.Place`."""

    def __init__(self, graphs: LineGraphs) -> None:
        self._graphs = graphs

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> Pool:
        """Pages [slots, pages, positions, width]. Raises as `Pool`."""
        return Pool(self._graphs, shape, dtype, _PAGE_LEADING)

    def read(self, there: Some) -> np.ndarray:
        """Lines of pages, [..., width] with their numbers' shape before. Raises as `Pool.read`."""
        return there.pool.read(there.lines)

    def write(self, array: np.ndarray) -> np.ndarray:
        """As it is: a pool takes arrays of the host."""
        return array


class OrtStates(MirroredStates):
    """Lines of state on a device. Positions that enter and leave are written and read by the row graphs themselves.

    Attributes:
        arrays: `Pool`s.
    """

    def __init__(self, spec: LoopSpec, lines: int, graphs: LineGraphs) -> None:
        """Raises MemoryError."""
        self._graphs = graphs
        super().__init__(spec, lines)

    def _zeros(self, lines: int, row: tuple[int, ...], dtype: str) -> Pool:
        return Pool(self._graphs, (lines, *row), numpy_dtype(dtype), 1)

    def copy(self, lines: np.ndarray) -> np.ndarray:
        with self.taken(len(lines)) as copies:
            for pool in self.arrays.values():
                pool[copies] = pool[lines]
        self._copied(lines, copies)
        return copies
