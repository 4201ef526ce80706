"""Where a cache's buffers lie: in numpy arrays, or where a session computes, so that they never cross to the host.

A buffer is [..., batch, positions, width]. What a cache does with buffers is copying positions of a row from one to
another, and now and then reading and writing them; a store is these few verbs for one kind of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mythos_runtime.errors import BackendFailed


@dataclass(frozen=True)
class Held:
    """A tensor where a session computes, in place of an array: in `inputs` of `Session.run` as the past, and in what
    that returns as the new entries. `value` is the session's own."""

    value: Any
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Store(Protocol):
    """Buffers of one kind. `numpy`: arrays; others: `Held`."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A buffer of zeros. MemoryError where there is no room."""
        ...

    def copy(self, target: Any, source: Any, rows: tuple[int, int] | None, firsts: tuple[int, int], count: int) -> None:
        """`count` positions of a row, from `firsts[1]` of the source's row to `firsts[0]` of the target's; None: of all
        rows, which both have as many of."""
        ...

    def read(self, buffer: Any, count: int) -> np.ndarray:
        """The first `count` positions of every row, on the host."""
        ...

    def write(self, buffer: Any, array: np.ndarray) -> None:
        """Set the first positions of every row, to an array of any dtype."""
        ...

    def settle(self) -> None:
        """What was copied is there for the session's next call."""
        ...


class HostStore:
    """numpy arrays."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.zeros(shape, dtype)

    def copy(self, target: Any, source: Any, rows: tuple[int, int] | None, firsts: tuple[int, int], count: int) -> None:
        to, of = (slice(first, first + count) for first in firsts)
        if rows is None:
            target[..., to, :] = source[..., of, :]
        else:
            target[..., rows[0], to, :] = source[..., rows[1], of, :]

    def read(self, buffer: np.ndarray, count: int) -> np.ndarray:
        return buffer[..., :count, :]

    def write(self, buffer: np.ndarray, array: np.ndarray) -> None:
        buffer[..., : array.shape[-2], :] = array

    def settle(self) -> None:
        pass


HOST = HostStore()


class TorchStore:
    """torch tensors; given are the ways there and back."""

    def __init__(self, to_torch: Callable[[np.ndarray], Any], to_numpy: Callable[[Any], np.ndarray]) -> None:
        self._to_torch, self._to_numpy = to_torch, to_numpy

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Held:
        try:
            one = self._to_torch(np.zeros(1, dtype))  # has the dtype
            return Held(one.new_zeros(shape), shape, dtype)
        except RuntimeError as error:  # as torch says that there is no memory, on any device
            raise MemoryError(str(error).partition("\n")[0]) from error

    def copy(self, target: Any, source: Any, rows: tuple[int, int] | None, firsts: tuple[int, int], count: int) -> None:
        HOST.copy(target.value, source.value, rows, firsts, count)

    def read(self, buffer: Held, count: int) -> np.ndarray:
        return self._to_numpy(buffer.value[..., :count, :])

    def write(self, buffer: Held, array: np.ndarray) -> None:
        buffer.value[..., : array.shape[-2], :] = self._to_torch(np.ascontiguousarray(array))

    def settle(self) -> None:
        pass


class Memory(Protocol):
    """Copies between addresses where a session computes."""

    def copy(self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int) -> None:
        """`height` stretches of `width` bytes, whose beginnings are so many bytes apart."""
        ...

    def settle(self) -> None:
        """Wait for the copies, where the session's calls do not."""
        ...


class AddressStore:
    """Buffers with addresses: OrtValues, and what cudaMalloc gives."""

    def __init__(
        self,
        memory: Memory,
        upload: Callable[[np.ndarray], Any],
        download: Callable[[Held], np.ndarray],
        address: Callable[[Any], int],
    ) -> None:
        """
        Args:
            upload: an array as a value of the session; raises BackendFailed. download: all of a buffer.
            address: of a value.
        """
        self._memory, self._upload, self._download, self._address = memory, upload, download, address

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Held:
        zeros = np.zeros(shape, dtype)
        try:
            return Held(self._upload(zeros), shape, dtype)
        except BackendFailed as error:
            raise MemoryError(str(error)) from error

    def copy(self, target: Any, source: Any, rows: tuple[int, int] | None, firsts: tuple[int, int], count: int) -> None:
        if not count:
            return
        *leading, batch, _, width = target.shape
        line = width * target.dtype.itemsize
        places = [
            (target, 0 if rows is None else rows[0], firsts[0]),
            (source, 0 if rows is None else rows[1], firsts[1]),
        ]
        (to, to_pitch), (of, of_pitch) = (self._place(held, row, first, rows is None) for held, row, first in places)
        together = math.prod(leading) * (batch if rows is None else 1)
        if together and line:
            self._memory.copy(to, to_pitch, of, of_pitch, count * line, together)

    def _place(self, held: Held, row: int, first: int, every: bool) -> tuple[int, int]:
        """Address of a position of a row; bytes from one row to the next, or to the same one of the next slot."""
        batch, positions, width = held.shape[-3:]
        line = width * held.dtype.itemsize
        apart = positions * line * (1 if every else batch)
        return self._address(held.value) + (row * positions + first) * line, apart

    def read(self, buffer: Held, count: int) -> np.ndarray:
        return self._download(buffer)[..., :count, :]

    def write(self, buffer: Held, array: np.ndarray) -> None:
        given = np.ascontiguousarray(array, buffer.dtype)
        if given.size:
            self.copy(buffer, Held(self._upload(given), given.shape, given.dtype), None, (0, 0), given.shape[-2])
            self.settle()

    def settle(self) -> None:
        self._memory.settle()


class CudaMemory:
    """A GPU's memory, through cuda.bindings.runtime. Built, not executed."""

    def __init__(self, cuda: Any, stream: int = 0, waits: bool = True) -> None:
        """`stream`: that the copies are put into; `waits`: nothing else orders them before the session's next call."""
        self._cuda, self._stream, self._waits = cuda, stream, waits

    def copy(self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        arguments = (target, target_pitch, source, source_pitch, width, height, kind, self._stream)
        self._check(self._cuda.cudaMemcpy2DAsync(*arguments))

    def settle(self) -> None:
        if self._waits:
            self._check(self._cuda.cudaStreamSynchronize(self._stream))

    def _check(self, result: tuple[Any, ...]) -> None:
        if result[0] != self._cuda.cudaError_t.cudaSuccess:
            raise BackendFailed(f"CUDA could not copy a part of a cache: {result[0]}")
