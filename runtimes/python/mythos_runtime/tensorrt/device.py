"""Device memory through cuda.bindings.runtime. **Not executed on a GPU yet.**"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.stores import AddressStore, CudaMemory, Held, Store


class Device:
    """Device memory by port name, grown when needed and kept, and the one stream that everything runs in."""

    def __init__(self, cuda: Any) -> None:
        """`cuda` is cuda.bindings.runtime. Raises BackendMissing where there is no GPU."""
        self._cuda = cuda
        self._buffers: dict[str, tuple[int, int]] = {}  # name -> address, size
        error, count = cuda.cudaGetDeviceCount()
        if error != cuda.cudaError_t.cudaSuccess or not count:
            raise BackendMissing(
                f"a TensorRT engine needs an NVIDIA GPU, and CUDA finds none here ({self._text(error)})"
            )
        (stream,) = self._call(cuda.cudaStreamCreate())
        self.stream = int(stream)

    def capability(self) -> int:
        """Of device 0, as 86 for 8.6."""
        attributes = self._cuda.cudaDeviceAttr
        (major,) = self._call(self._cuda.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMajor, 0))
        (minor,) = self._call(self._cuda.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMinor, 0))
        return 10 * int(major) + int(minor)

    def buffer(self, name: str, size: int) -> int:
        """Address of at least `size` bytes for a port (never null, which TensorRT refuses even for empty tensors)."""
        address, have = self._buffers.get(name, (0, 0))
        if have < max(size, 1):
            if address:
                self._call(self._cuda.cudaFree(address))
                del self._buffers[name]
            (new,) = self._call(self._cuda.cudaMalloc(max(size, 1)))
            address = int(new)
            self._buffers[name] = (address, max(size, 1))
        return address

    def upload(self, name: str, array: np.ndarray) -> int:
        address = self.buffer(name, array.nbytes)
        if array.nbytes:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            self._call(self._cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self.stream))
        return address

    def download(self, name: str, array: np.ndarray) -> None:
        if array.nbytes:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            source = self._buffers[name][0]
            self._call(self._cuda.cudaMemcpyAsync(array.ctypes.data, source, array.nbytes, kind, self.stream))

    def synchronize(self) -> None:
        self._call(self._cuda.cudaStreamSynchronize(self.stream))

    def store(self) -> Store:
        """Caches in this memory. Their copies go into the stream that the engine runs in, so that nobody waits."""

        def upload(array: np.ndarray) -> Owned:
            (address,) = self._call(self._cuda.cudaMalloc(max(array.nbytes, 1)))
            owned = Owned(int(address), self._cuda)
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            self._call(self._cuda.cudaMemcpyAsync(owned.address, array.ctypes.data, array.nbytes, kind, self.stream))
            self.synchronize()  # until here the array is in use
            return owned

        def download(held: Held) -> np.ndarray:
            array = np.empty(held.shape, held.dtype)
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            address = held.value.address
            self._call(self._cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self.stream))
            self.synchronize()
            return array

        return AddressStore(CudaMemory(self._cuda, self.stream, waits=False), upload, download, lambda v: v.address)

    def __del__(self) -> None:
        for address, _ in self._buffers.values():
            self._cuda.cudaFree(address)
        if hasattr(self, "stream"):
            self._cuda.cudaStreamDestroy(self.stream)

    def _call(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        error, *values = result
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise BackendFailed(f"CUDA failed: {self._text(error)}")
        return tuple(values)

    def _text(self, error: Any) -> str:
        _, text = self._cuda.cudaGetErrorString(error)
        return text.decode() if isinstance(text, bytes) else str(text)


@dataclass(frozen=True)
class Borrowed:
    """Memory of a port, good until the next call."""

    address: int


class Owned:
    """Memory that is freed with this object."""

    def __init__(self, address: int, cuda: Any) -> None:
        self.address, self._cuda = address, cuda

    def __del__(self) -> None:
        self._cuda.cudaFree(self.address)
