"""The few calls of the CUDA driver that starting a kernel needs, through ctypes. Not executed on a GPU yet."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_SUCCESS = 0
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_MAX_DYNAMIC_SHARED_BYTES = 8  # CUfunction_attribute
SHARED_WITHOUT_ASKING = 48 << 10
"""Bytes of dynamic shared memory that a block may have before its kernel opts in to more."""


@dataclass(frozen=True)
class Launch:
    """One start of a kernel: its handle, blocks along x, y and z, and per block threads and dynamic shared memory."""

    function: int
    grid: Sequence[int]
    threads: int
    shared_bytes: int
    arguments: Sequence[ctypes._SimpleCData[Any]]


class Driver(Protocol):
    """What launches kernels; addresses and handles are integers, streams are CUDA's."""

    def capability(self) -> int:
        """Of the current context's GPU, 86 for 8.6."""
        ...

    def function(self, image: bytes, entry: str, shared_bytes: int) -> int:
        """Load a cubin into the current context and allow its kernel that much dynamic shared memory."""
        ...

    def launch(self, launch: Launch, stream: int) -> None:
        """Put a kernel into the stream."""
        ...


class CudaDriver:
    """libcuda, in the context that is current on this thread."""

    def __init__(self) -> None:
        """Raises RuntimeError where there is no driver."""
        try:
            self._cuda: Any = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RuntimeError(f"this needs an NVIDIA GPU with its driver (libcuda: {error})") from error

    def capability(self) -> int:
        device = ctypes.c_int()
        self._call("cuCtxGetDevice", ctypes.byref(device))
        numbers = []
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
            numbers.append(value.value)
        return 10 * numbers[0] + numbers[1]

    def function(self, image: bytes, entry: str, shared_bytes: int) -> int:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(entry.encode()))
        if shared_bytes > SHARED_WITHOUT_ASKING:
            self._call(
                "cuFuncSetAttribute", function, ctypes.c_int(_MAX_DYNAMIC_SHARED_BYTES), ctypes.c_int(shared_bytes)
            )
        assert function.value is not None
        return function.value

    def launch(self, launch: Launch, stream: int) -> None:
        values = launch.arguments
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [ctypes.c_uint(number) for number in (*launch.grid, launch.threads, 1, 1, launch.shared_bytes)]
        function = ctypes.c_void_p(launch.function)
        self._call("cuLaunchKernel", function, *sizes, ctypes.c_void_p(stream), addresses, None)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status != _SUCCESS:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"{name} failed: {(text.value or b'unknown error').decode()} ({status})")
