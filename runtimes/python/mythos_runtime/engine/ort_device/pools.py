"""Lines of memory on a device that are indexed and assigned to as numpy arrays are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mythos_runtime.engine.ort_device.lines import LineGraphs


class Pool:
    """Memory on a device: lines, numbered by its leading dimensions, which are what is indexed. What is indexed is
    copied when it is read, or assigned to lines of a pool.

    Attributes:
        shape, nbytes: as those of an array.
    """

    def __init__(self, lines: LineGraphs, shape: tuple[int, ...], dtype: np.dtype | str, leading: int) -> None:
        """Zeros, with so many dimensions that count lines. Raises as `OrtDevice.put`."""
        self._lines, self._leading = lines, shape[:leading]
        self.buffer = lines.device.empty(shape, dtype)
        self.shape, self.nbytes, self._own = shape, self.buffer.nbytes, shape[leading:]
        self._width = math.prod(self._own) * self.buffer.dtype.itemsize
        lines.clear(self.buffer, self._width)

    @property
    def address(self) -> int:
        """Of the first line, on the device."""
        return self.buffer.address

    def __getitem__(self, index: Any) -> Some:
        return Some(self, numbers_of(self._leading, index))

    def __setitem__(self, index: Any, source: Some | np.ndarray) -> None:
        to = numbers_of(self._leading, index)
        if not to.size:
            return
        if isinstance(source, Some):
            of = np.broadcast_to(source.lines, to.shape)
            self._lines.move(self.buffer, to.ravel(), source.pool.buffer, of.ravel(), self._width)
            return
        rows = np.ascontiguousarray(np.broadcast_to(source, (*to.shape, *self._own)), self.buffer.dtype)
        self._lines.put(self.buffer, to.ravel(), rows.reshape(to.size, -1).view(np.int8))

    def read(self, lines: np.ndarray) -> np.ndarray:
        """Lines of these numbers, int64 of any shape, on the host: of that shape and a line's own. Raises as
        `OrtDevice.put` and `OrtDevice.read`."""
        rows = self._lines.read(self.buffer, lines.ravel(), self._width)
        return rows.view(self.buffer.dtype).reshape(*lines.shape, *self._own)


@dataclass(frozen=True)
class Some:
    """Lines of a pool, by their numbers."""

    pool: Pool
    lines: np.ndarray


def numbers_of(shape: tuple[int, ...], index: Any) -> np.ndarray:
    """What `np.arange(prod(shape)).reshape(shape)[index]` is, without as many numbers.

    `index`: of each dimension a slice, an integer or integers [n] within it; those of integers are next to each other.
    """
    given = index if isinstance(index, tuple) else (index,)
    given += (slice(None),) * (len(shape) - len(given))
    numbers, beside = np.zeros((), np.int64), False
    for axis, (size, one) in enumerate(zip(shape, given, strict=True)):
        stride = math.prod(shape[axis + 1 :])
        if isinstance(one, slice):
            numbers, beside = numbers[..., None] + np.arange(size)[one] * stride, False
            continue
        several = np.asarray(one)
        assert not several.size or (several.dtype.kind in "iu" and several.min() >= 0 and several.max() < size), index
        several = several.astype(np.int64)
        own = numbers if beside or not several.ndim else numbers[..., None]
        numbers, beside = own + several * stride, beside or several.ndim > 0
    return numbers
