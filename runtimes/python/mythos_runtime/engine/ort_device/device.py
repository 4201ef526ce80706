"""Memory of ONNX Runtime's on a device, and graphs that are bound to it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mythos_runtime.ort import OrtSession, call_error
from mythos_runtime.ort_opening import error_types, first_line
from mythos_runtime.ports import Port, Ports, numpy_dtype, shape_of

_NO_ROOM = (  # its arena says so, or CUDA does; on the CPU it is a MemoryError already
    "Failed to allocate memory",
    "is smaller than requested bytes",
    "out of memory",
)
_ALIGNED = 64  # bytes that every number of a frame begins at a multiple of; kernels count on 16


@dataclass(frozen=True)
class Buffer:
    """Memory on a device.

    Attributes:
        value: an OrtValue of this shape and dtype, which owns the memory.
        array: a view of it where the device is the CPU, None elsewhere.
    """

    value: Any
    array: np.ndarray | None
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def address(self) -> int:
        """On the device."""
        return int(self.value.data_ptr())

    @property
    def nbytes(self) -> int:
        """Bytes of it all."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class OrtDevice:
    """A device of ONNX Runtime's.

    Attributes:
        name: cuda, or cpu in tests.
        calls: of ONNX Runtime's graphs so far. uploads, downloads: copies to it and back so far.
    """

    name: str
    calls: int = 0
    uploads: int = 0
    downloads: int = 0
    _ort: Any = field(default_factory=lambda: importlib.import_module("onnxruntime"))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> Buffer:
        """Memory whose content is anything, for what is written before it is read; nothing crosses.

        Raises:
            MemoryError: there is no room.
            BackendFailed: ONNX Runtime gives none for another reason.
        """
        dtype = np.dtype(dtype)
        with _one_line():
            value = self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self.name, 0)
            array = value.numpy() if self.name == "cpu" else None
        return Buffer(value, array, shape, dtype)

    def put(self, array: np.ndarray) -> Buffer:
        """A copy of an array there. Raises as `empty` and `write`."""
        buffer = self.empty(array.shape, array.dtype)
        self.write(buffer, np.ascontiguousarray(array))
        return buffer

    def write(self, buffer: Buffer, array: np.ndarray) -> None:
        """Set all of a buffer to an array of its shape and dtype, contiguous. Raises BackendFailed."""
        self.uploads += 1
        with _one_line():
            buffer.value.update_inplace(array)

    def read(self, buffer: Buffer) -> np.ndarray:
        """All of a buffer, of its shape and dtype; a copy. Raises BackendFailed."""
        self.downloads += 1
        with _one_line():
            return np.array(buffer.value.numpy())

    def bound(self, session: OrtSession, ports: Ports, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> Bound:
        """A graph that reads and writes at these addresses, by port: each of the port's dtype and shape, with the
        ports' symbols of these sizes. Outputs without an address are the host's. Raises BackendFailed."""
        with _one_line():
            return self._bind(session, ports, addresses, sizes)

    def _bind(self, session: OrtSession, ports: Ports, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> Bound:
        binding = session.inference.io_binding()

        def place(port: Port) -> tuple[Any, ...]:
            shape = list(shape_of(port, sizes))
            return port.name, self.name, 0, numpy_dtype(port.dtype), shape, addresses[port.name]

        for port in ports.inputs:
            binding.bind_input(*place(port))
        own = []
        for port in ports.outputs:
            if port.name in addresses:
                binding.bind_output(*place(port))
            else:
                binding.bind_output(port.name, "cpu")
                own.append(port.name)
        session.bind_linked(binding)
        order = [port.name for port in ports.outputs]
        return Bound(self, session, binding, [order.index(name) for name in own])


@dataclass(frozen=True)
class Bound:
    """A graph with all that it reads and writes."""

    device: OrtDevice
    session: OrtSession
    binding: Any
    own: list[int]
    """Which of its outputs are the host's."""

    def __call__(self) -> list[np.ndarray]:
        """Run it; its outputs on the host. Raises BackendFailed."""
        self.device.calls += 1
        try:
            self.session.inference.run_with_iobinding(self.binding)
            outputs = self.binding.get_outputs() if self.own else []
            found = [np.array(outputs[at].numpy()) for at in self.own]  # may be a view of what the next run writes
        except self.session.failures as error:
            raise call_error(error) from error
        self.device.downloads += len(found)
        return found


class Numbers:
    """The numbers of a call, on the host and on the device: one piece, so that one copy takes all of them there."""

    def __init__(self, device: OrtDevice, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """`shapes`: dtype and shape by name; all are zeros on the host at first. Raises as `OrtDevice.empty`."""
        self._device, self._places, end = device, {}, 0
        for name, (dtype, shape) in shapes.items():
            self._places[name] = end
            end += -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNED) * _ALIGNED
        self._here = np.zeros(end, np.int8)
        self._there = device.empty((end,), "int8")
        self.here = {
            name: np.frombuffer(self._here.data, dtype, math.prod(shape), self._places[name]).reshape(shape)
            for name, (dtype, shape) in shapes.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        """On the host, to be set."""
        return self.here[name]

    def address(self, name: str) -> int:
        """On the device."""
        return self._there.address + self._places[name]

    def cross(self) -> None:
        """Take them there. Raises BackendFailed."""
        self._device.write(self._there, self._here)


@contextmanager
def _one_line() -> Iterator[None]:
    """What ONNX Runtime raises meanwhile, in a line: MemoryError where it has no room, BackendFailed otherwise."""
    try:
        yield
    except error_types() as error:
        if any(words in str(error) for words in _NO_ROOM):
            raise MemoryError(first_line(error)) from error
        raise call_error(error) from error
