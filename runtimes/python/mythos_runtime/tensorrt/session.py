"""An engine that runs: ports, profiles and addresses. **Not executed on a GPU yet.**"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RequestError
from mythos_runtime.ports import Ports, check_arrays, numpy_dtype, shape_of
from mythos_runtime.stores import Held, Store
from mythos_runtime.tensorrt.device import Borrowed, Device
from mythos_runtime.tensorrt.plugins import refusal

_DTYPES = {
    "BOOL": "bool",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FLOAT": "float32",
}


class TensorRTSession:
    """An engine in TensorRT; see `mythos_runtime.session.Session`. Not executed on a GPU yet."""

    name = "tensorrt"
    operators = "engine"
    runs_rows = False

    def __init__(self, plan: bytes, ports: Ports, trt: Any, cuda: Any, label: str) -> None:
        """Deserialize a plan. `trt` is tensorrt or tensorrt_rtx, `cuda` is cuda.bindings.runtime.

        Raises:
            BackendMissing: the engine is for another GPU or another version.
            BundleError: its ports are not the contract's, or what its plug-ins find in it is damaged.
        """
        self._ports, self._trt, self._device = ports, trt, Device(cuda)
        # The runtime and its logger must outlive the engine.
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = refusal()
            if reason:
                raise BundleError(f"{label} cannot be loaded{reason}")
            raise BackendMissing(
                f"{label} cannot be loaded by {trt.__name__} {trt.__version__} on this GPU: it was built for another "
                "GPU or another version; export the model again with --target tensorrt for this machine"
            )
        self._check_ports(label)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendFailed(f"{label}: TensorRT could not make an execution context; is the GPU's memory full?")
        self._profile = -1
        self.store: Store = self._device.store()
        self.description = (
            f"{trt.__name__} {trt.__version__}, {label}, {self._engine.num_optimization_profiles} profiles"
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        symbols = check_arrays(self._ports.inputs, inputs)
        arrays = {port.name: _contiguous(inputs[port.name]) for port in self._ports.inputs}
        stays = any(isinstance(array, Held) for array in arrays.values())
        self._choose_profile(arrays)
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, tuple(array.shape)):
                raise BackendFailed(f"TensorRT refuses the shape {list(array.shape)} for {name}")
            self._bind(name, self._address_of_input(name, array))
        outputs: dict[str, Any] = {}
        for port in self._ports.outputs:
            shape, dtype = shape_of(port, symbols), numpy_dtype(port.dtype)
            if stays and port.role == "new":
                held = Held(0, shape, dtype)
                outputs[port.name] = replace(held, value=Borrowed(self._device.buffer(port.name, held.nbytes)))
            else:
                outputs[port.name] = np.empty(shape, dtype)
        on_host = {name for name in outputs if self._on_host(name)}
        for name, array in outputs.items():
            if isinstance(array, Held):
                self._bind(name, array.value.address)
            else:
                self._bind(name, array.ctypes.data if name in on_host else self._device.buffer(name, array.nbytes))
        if not self._context.execute_async_v3(self._device.stream):
            raise BackendFailed(f"TensorRT could not run the engine{refusal() or '; its log says why'}")
        for name in outputs.keys() - on_host:
            if not isinstance(outputs[name], Held):
                self._device.download(name, outputs[name])
        self._device.synchronize()  # until here the inputs' memory is in use
        return outputs

    # -- profiles and addresses ---------------------------------------------------------------------------------------

    def _ranges(self, profile: int) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Least and largest shape of every input that has one."""
        found = {}
        for port in self._ports.inputs:
            if port.dims:
                least, _, most = self._engine.get_tensor_profile_shape(port.name, profile)
                found[port.name] = (tuple(least), tuple(most))
        return found

    def _choose_profile(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Make the narrowest profile that takes these shapes the active one: decode before prefill for one token."""
        fitting = []
        for profile in range(self._engine.num_optimization_profiles):
            ranges = self._ranges(profile)
            if all(_fits(arrays[name].shape, *bounds) for name, bounds in ranges.items()):
                fitting.append((ranges[self._ports.of("ids").name][1], profile))
        if not fitting:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items() if array.ndim)
            raise RequestError(f"no optimization profile of the engine takes {shapes}; {self._profiles_in_words()}")
        profile = min(fitting)[1]
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, self._device.stream):
                raise BackendFailed(f"TensorRT could not switch to its optimization profile {profile}")
            self._device.synchronize()
            self._profile = profile

    def _profiles_in_words(self) -> str:
        words = []
        for profile in range(self._engine.num_optimization_profiles):
            ranges = [f"{name} {list(a)} to {list(b)}" for name, (a, b) in self._ranges(profile).items()]
            words.append(f"profile {profile} takes {', '.join(ranges)}")
        return "; ".join(words)

    def _on_host(self, name: str) -> bool:
        return bool(self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST)

    def _address_of_input(self, name: str, array: np.ndarray | Held) -> int:
        """Where the engine finds an input: scalars that shape the graph stay on the host, the rest is uploaded."""
        if isinstance(array, Held):
            return int(array.value.address)
        return int(array.ctypes.data) if self._on_host(name) else self._device.upload(name, array)

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendFailed(f"TensorRT refuses the memory given for {name}")

    def _check_ports(self, label: str) -> None:
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        for port in (*self._ports.inputs, *self._ports.outputs):
            if port.name not in names:
                raise BundleError(f"{label} lacks the port {port}; export the model again")
            dtype = _DTYPES.get(self._engine.get_tensor_dtype(port.name).name)
            if dtype != port.dtype:
                raise BundleError(f"{label}: the port {port.name} is {dtype}, expected {port}; export the model again")


def _contiguous(array: np.ndarray | Held) -> Any:
    return array if isinstance(array, Held) else np.ascontiguousarray(array)


def _fits(shape: tuple[int, ...], least: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return len(shape) == len(least) and all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))
