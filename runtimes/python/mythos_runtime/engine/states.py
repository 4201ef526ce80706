"""What the loop carries of every position that has not run all depths: one line of each tensor per position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mythos_runtime.engine.pages import OutOfStates
from mythos_runtime.spec import LoopSpec, StateTensor

HALTED, DEPTH = "halted", "depth"
ENCODED, TOKEN = "encoded", "token"


class States:
    """Lines of state.

    Attributes:
        arrays: [lines, ...] by the state's name; `encoded`, what stands before the loop; `token`, the position's id.
        threshold: float32 [lines], where a position halts; NaN: nowhere before its cap.
        cap: int32 [lines], the loop with which it halts at the latest.
        freed: called with lines that are nobody's any more (tests fill them with NaN).
        peak: the most lines that were in use at a time.
    """

    spare = 0
    """Lines behind the others that are nobody's."""

    def __init__(self, spec: LoopSpec, lines: int) -> None:
        self._tensors: tuple[StateTensor, ...] = spec.state
        self._h, self._answer, self._spent = spec.state[0].name, spec.state[1].name, spec.exit.spent
        self.arrays = {tensor.name: self._zeros(lines, _row(tensor), tensor.dtype) for tensor in spec.state}
        self.arrays[ENCODED] = self._zeros(lines, _row(spec.state[0]), spec.state[0].dtype)
        self.arrays[TOKEN] = self._zeros(lines, (), "int64")
        self.threshold, self.cap = np.zeros(lines, np.float32), np.zeros(lines, np.int32)
        self._free = list(range(lines - 1, -1, -1))
        self.freed: Callable[[list[int]], None] = lambda lines: None
        self.lines, self.peak = lines, 0

    def _zeros(self, lines: int, row: tuple[int, ...], dtype: str) -> Any:
        """A tensor of so many lines, and the spare ones behind them."""
        return np.zeros((lines + self.spare, *row), dtype)

    @property
    def bytes(self) -> int:
        """All of it, touched or not."""
        return sum(int(array.nbytes) for array in (*self.arrays.values(), self.threshold, self.cap))

    def grow(self, lines: int) -> None:
        """Have at least so many."""
        used, more = self.lines, lines - self.lines
        if more <= 0:
            return

        def grown(array: Any, larger: Any) -> Any:
            if len(self._free) < used:
                larger[:used] = array[:used]
            return larger

        dtypes = {tensor.name: tensor.dtype for tensor in self._tensors}
        dtypes |= {ENCODED: dtypes[self._h], TOKEN: "int64"}
        self.arrays = {
            name: grown(array, self._zeros(lines, tuple(array.shape[1:]), dtypes[name]))
            for name, array in self.arrays.items()
        }
        self.threshold = grown(self.threshold, np.zeros(lines, np.float32))
        self.cap = grown(self.cap, np.zeros(lines, np.int32))
        self._free[:0] = range(lines - 1, used - 1, -1)
        self.lines = lines

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def halted(self) -> np.ndarray:
        """Of every line, on the host."""
        halted: np.ndarray = self.arrays[HALTED]
        return halted

    def begin(self, ids: np.ndarray, encoded: Any, initial: np.ndarray | None = None) -> np.ndarray:
        """Lines for new positions, ids int64 [r], with the state before the first loop: encoded [r, D], and what was
        drawn.

        Raises:
            OutOfStates: there are not as many.
        """
        lines = self._take(len(encoded))
        self.arrays[ENCODED][lines] = encoded
        self.arrays[TOKEN][lines] = ids
        for tensor in self._tensors:
            self.arrays[tensor.name][lines] = first_state(tensor, encoded, initial)
        return lines

    def copy(self, lines: np.ndarray) -> np.ndarray:
        """Lines with the same values, for a fork. Raises OutOfStates."""
        first = self.arrays[self._tensors[0].name][lines]
        copies = self.begin(self.arrays[TOKEN][lines], self.arrays[ENCODED][lines], first)
        for array in (*self.arrays.values(), self.threshold, self.cap):
            array[copies] = array[lines]
        return copies

    def _take(self, count: int) -> np.ndarray:
        """Lines of nobody. Raises OutOfStates."""
        if count > self.free:
            raise OutOfStates
        lines = np.array(self._free[len(self._free) - count :][::-1], np.int64)
        del self._free[len(self._free) - count :]
        self.peak = max(self.peak, self.lines - self.free)
        return lines

    @contextmanager
    def taken(self, count: int) -> Iterator[np.ndarray]:
        """Lines of nobody, which are nobody's again where what is done with them raises."""
        lines = self._take(count)
        try:
            yield lines
        except BaseException:
            self.end(lines[::-1].tolist())
            raise

    def depths(self, lines: np.ndarray) -> np.ndarray:
        """The loops that these lines have run, int32 [r]."""
        depths: np.ndarray = self.arrays[DEPTH][lines]
        return depths

    def answers(self, lines: np.ndarray, early: np.ndarray) -> Any:
        """What leaves the loop of these lines, [r, D]; a copy.

        `early`: bool [r], which leave as if their last loop had been their last: a sum takes what is left of 1 from the
        state.
        """
        answers: np.ndarray = self.arrays[self._answer][lines]
        if self._spent is not None and early.any():
            some = lines[early]
            rest = np.where(self.halted[some], 0, np.maximum(1 - self.arrays[self._spent][some], 0))
            answers[early] += rest[:, None] * self.arrays[self._h][some]
        return answers

    def end(self, lines: list[int]) -> None:
        """The lines are nobody's any more."""
        self._free.extend(lines)
        self.freed(lines)


class MirroredStates(States):
    """Lines of state that lie where the row graphs run; who has halted, and after how many loops, is known on the host,
    too."""

    def __init__(self, spec: LoopSpec, lines: int) -> None:
        super().__init__(spec, lines)
        self._halted, self._depth = np.zeros(lines, np.bool_), np.zeros(lines, np.int32)
        self._first = {tensor.name: tensor.start == "ones" for tensor in spec.state}

    def grow(self, lines: int) -> None:
        more = max(lines - self.lines, 0)
        super().grow(lines)
        self._halted, self._depth = np.pad(self._halted, (0, more)), np.pad(self._depth, (0, more))

    @property
    def halted(self) -> np.ndarray:
        return self._halted

    def saw(self, lines: np.ndarray, halted: np.ndarray, depth: np.ndarray) -> None:
        """What a call made of these lines."""
        self._halted[lines], self._depth[lines] = halted, depth

    def depths(self, lines: np.ndarray) -> np.ndarray:
        depths: np.ndarray = self._depth[lines]
        return depths

    def _take(self, count: int) -> np.ndarray:
        lines = super()._take(count)
        self._halted[lines], self._depth[lines] = self._first[HALTED], self._first[DEPTH]
        return lines

    def _copied(self, lines: np.ndarray, copies: np.ndarray) -> None:
        """Give the copies what the host knows of these lines."""
        for array in (self.threshold, self.cap, self._halted, self._depth):
            array[copies] = array[lines]


def first_state(tensor: StateTensor, encoded: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
    """What the loop begins with, [r, ...], where `encoded` [r, D] stands before it and `initial` was drawn."""
    if tensor.start in ("noise", "initial"):
        assert initial is not None
        return initial.astype(tensor.dtype)
    if tensor.start == "encoded":
        return encoded.astype(tensor.dtype)
    return np.full((len(encoded), *_row(tensor)), tensor.start == "ones", tensor.dtype)


def _row(tensor: StateTensor) -> tuple[int, ...]:
    """Dims of one position, of dims (B, T, ...)."""
    return tuple(dim for dim in tensor.dims if isinstance(dim, int))
