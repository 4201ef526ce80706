"""Pages and states where ONNX Runtime runs the row graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mythos_runtime.engine.ort_device.device import Bound, Numbers
from mythos_runtime.engine.ort_device.lines import LineGraphs
from mythos_runtime.engine.ort_device.pools import Pool, Some
from mythos_runtime.engine.states import ENCODED, TOKEN, MirroredStates
from mythos_runtime.errors import BundleError
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.spec import LoopSpec

_PAGE_LEADING = 3  # slots, pages and positions: a line is a position's
_MOST_FRAMES = 128


@dataclass(frozen=True)
class Rows:
    """The first rows of a batch on the device."""

    address: int
    count: int

    def __len__(self) -> int:
        return self.count


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
    """Lines of state on a device.

    Attributes:
        arrays: `Pool`s.
    """

    def __init__(self, spec: LoopSpec, lines: int, graphs: LineGraphs) -> None:
        """Raises MemoryError; BundleError for a state that begins as what stands before the loop, in another type."""
        self.graphs = graphs
        for tensor in spec.state:
            if tensor.start == "encoded" and tensor.dtype != "float32":
                raise BundleError(
                    f"the state {tensor.name} is {tensor.dtype}, expected float32; export the model again"
                )
        constant = [tensor for tensor in spec.state if tensor.start in ("zeros", "ones")]
        self._constant = {tensor.name: graphs.batch(tensor.name, int(tensor.start == "ones")) for tensor in constant}
        self._entering: dict[tuple[int, int], tuple[Numbers, Bound]] = {}
        self._leaving: dict[int, tuple[Numbers, Bound]] = {}
        super().__init__(spec, lines)

    def _zeros(self, lines: int, row: tuple[int, ...], dtype: str) -> Pool:
        return Pool(self.graphs, (lines, *row), numpy_dtype(dtype), 1)

    def grow(self, lines: int) -> None:
        super().grow(lines)
        self._entering.clear()
        self._leaving.clear()

    def begin(self, ids: np.ndarray, encoded: Rows, initial: np.ndarray | None = None) -> np.ndarray:
        """As `States.begin`; `encoded` [r, D] is on the device."""
        with self._taken(len(encoded)) as lines:
            numbers, putting = self._entering.get((len(lines), encoded.address)) or self._beginning(encoded)
            numbers["lines"][:], numbers[TOKEN][:] = lines, ids
            for tensor in self._tensors:
                if tensor.start in ("noise", "initial"):
                    assert initial is not None
                    numbers[tensor.name][:] = initial
            numbers.cross()
            putting()
        return lines

    def _beginning(self, encoded: Rows) -> tuple[Numbers, Bound]:
        """For as many rows, at that place."""
        count = len(encoded)
        drawn = [tensor for tensor in self._tensors if tensor.start in ("noise", "initial")]
        shapes = {"lines": ("int64", (count,)), TOKEN: ("int64", (count,))}
        shapes |= {tensor.name: (tensor.dtype, (count, *self.arrays[tensor.name].shape[1:])) for tensor in drawn}
        numbers = Numbers(self.graphs.device, shapes)
        rows = {tensor.name: encoded.address for tensor in self._tensors} | {ENCODED: encoded.address}
        rows |= {name: buffer.address for name, buffer in self._constant.items()}
        rows |= {name: numbers.address(name) for name in shapes if name != "lines"}
        if len(self._entering) >= _MOST_FRAMES:
            self._entering.clear()
        frame = numbers, self.graphs.putting(self.arrays, numbers.address("lines"), count, rows)
        self._entering[count, encoded.address] = frame
        return frame

    def copy(self, lines: np.ndarray) -> np.ndarray:
        with self._taken(len(lines)) as copies:
            for pool in self.arrays.values():
                pool[copies] = pool[lines]
        self._copied(lines, copies)
        return copies

    def answers(self, lines: np.ndarray, early: np.ndarray) -> Rows:
        """As `States.answers`, on the device, good until the next call; the rows' tokens are taken with them."""
        count, rests = len(lines), self._spent is not None and bool(early.any())
        frame = self._leaving.get(count)
        if frame is None:
            if len(self._leaving) >= _MOST_FRAMES:
                self._leaving.clear()
            numbers = Numbers(self.graphs.device, {"lines": ("int64", (count,)), "early": ("bool", (count,))})
            frame = numbers, self.graphs.taking(self.arrays, numbers.address("lines"), count)
            self._leaving[count] = frame
        numbers, taking = frame
        numbers["lines"][:], numbers["early"][:] = lines, early
        numbers.cross()
        taking()
        answers = self.graphs.rows[self._answer]
        if rests:
            assert self.graphs.answered is not None
            self.graphs.resting(numbers.address("early"), count)()
            answers = self.graphs.answered
        return Rows(answers.address, count)
