"""The tensorrt backend: a serialized engine on an NVIDIA GPU. **Not executed on a GPU yet**: written against the Python
API of TensorRT 10 and TensorRT-RTX 1.7 (the same but for the module's name).

The manifest's targets say which engines there are. Optional, per target: `details["engines"]`, a list of
`{file, sm: [80, 86, ...], library: "tensorrt_rtx" or "tensorrt", plugins: whether it calls plug-ins}`; without it every
file in `.engine` is taken to be TensorRT-RTX's, to fit the GPU and to call none. The optimization profile (prefill or
decode) is chosen per call, by its shapes.

An engine is native code: load only what you built. Past buffers lie on the device and are bound where they lie; only
tokens go there and logits come back.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RequestError
from mythos_runtime.fields import Fields
from mythos_runtime.manifest import Manifest
from mythos_runtime.ports import Ports, check_arrays, numpy_dtype, shape_of
from mythos_runtime.session import Options
from mythos_runtime.stores import AddressStore, CudaMemory, Held, Store

_DTYPES = {
    "BOOL": "bool",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FLOAT": "float32",
}
PLUGINS_ENTRY_POINT = "mythos_runtime.tensorrt_plugins"
"""Packages whose engines call plug-ins name a function under this entry point group, which registers them: it takes the
module tensorrt or tensorrt_rtx."""

_PACKAGES = {"tensorrt_rtx": "tensorrt-rtx-cu13", "tensorrt": "tensorrt"}


@dataclass(frozen=True)
class EngineFile:
    """An engine of the bundle: the library that runs it, and the compute capabilities it holds code for."""

    file: str
    library: str = "tensorrt_rtx"
    sm: tuple[int, ...] = ()  # empty: not known
    plugins: bool = False


def missing(library: str = "tensorrt_rtx") -> str | None:
    """What this machine lacks for this backend: all of it, in one sentence."""
    lacks = []
    if importlib.util.find_spec(library) is None:
        lacks.append(f"the package {_PACKAGES[library]} (pip install {_PACKAGES[library]})")
    if not _has_cuda_bindings():
        lacks.append("the package cuda-bindings (pip install cuda-bindings)")
    try:
        ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        lacks.append("an NVIDIA GPU with its driver (libcuda cannot be loaded)")
    return f"a TensorRT engine needs {', '.join(lacks)}" if lacks else None


def _has_cuda_bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except ImportError:  # the parent package is absent
        return False


def engines(manifest: Manifest) -> tuple[EngineFile, ...]:
    """The engines that the manifest's targets list. Raises BundleError where their details are malformed."""
    found = []
    for target in manifest.targets:
        listed = [path for path in target.files if path.endswith(".engine")]
        if "engines" not in target.details:
            found += [EngineFile(path) for path in listed]
            continue
        details = Fields({"engines": target.details["engines"]}, "manifest.json", f"targets[{target.name}].details")
        for item in details.items("engines"):
            file, library = item.text("file"), item.choice("library", tuple(_PACKAGES))
            if file not in listed:
                raise item.fail("file", "an engine among the target's files", file)
            sm = item.listed("sm")
            if not all(isinstance(number, int) for number in sm):
                raise item.fail("sm", "a list of compute capabilities, such as [80, 86]", sm)
            plugins = item.take("plugins", False)
            if not isinstance(plugins, bool):
                raise item.fail("plugins", "true or false", plugins)
            found.append(EngineFile(file, library, tuple(sm), plugins))
    return tuple(found)


class TensorRTSession:
    """An engine in TensorRT; see `mythos_runtime.session.Session`. Not executed on a GPU yet."""

    name = "tensorrt"
    operators = "engine"
    runs_rows = False

    def __init__(self, plan: bytes, ports: Ports, trt: Any, cuda: Any, label: str) -> None:
        """Deserialize a plan. `trt` is tensorrt or tensorrt_rtx, `cuda` is cuda.bindings.runtime.

        Raises:
            BackendMissing: the engine is for another GPU or another version.
            BundleError: its ports are not the contract's.
        """
        self._ports, self._trt, self._device = ports, trt, Device(cuda)
        # The runtime and its logger must outlive the engine.
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
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
            raise BackendFailed("TensorRT could not run the engine; its log says why")
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


def _contiguous(array: np.ndarray | Held) -> Any:
    return array if isinstance(array, Held) else np.ascontiguousarray(array)


def _fits(shape: tuple[int, ...], least: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return len(shape) == len(least) and all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))


def choose_engine(found: tuple[EngineFile, ...], capability: int) -> EngineFile:
    """The engine that holds code for a GPU of this compute capability (86 for 8.6); BackendMissing where none does."""
    for engine in found:
        if capability in engine.sm or not engine.sm:
            return engine
    built = "; ".join(f"{engine.file} for {', '.join(map(str, engine.sm))}" for engine in found)
    raise BackendMissing(
        f"this GPU has compute capability {capability}, the bundle has engines for others ({built}); "
        f"export again with --sm {capability}"
    )


def register_plugins(trt: Any, label: str) -> None:
    """Make known what the engine calls; BackendMissing where no installed package has it."""
    entries = importlib.metadata.entry_points(group=PLUGINS_ENTRY_POINT)
    if not entries:
        raise BackendMissing(
            f"{label} calls plug-ins, which no package here registers: pip install mythos-export, or export the model "
            "again without --plugins"
        )
    for entry in entries:
        entry.load()(trt)


def missing_to_run(manifest: Manifest) -> str | None:
    """What this machine lacks for this bundle's engines: their library, a driver, a GPU that one was built for.

    Raises:
        BundleError: the manifest's details of its engines are malformed, or there are none.
    """
    try:
        _engine_for_this_gpu(manifest)
    except BackendMissing as error:
        return str(error)
    return None


def _engine_for_this_gpu(manifest: Manifest) -> tuple[EngineFile, Any]:
    """The engine to load, and cuda.bindings.runtime; errors as `open_session`."""
    found = engines(manifest)
    if not found:
        raise BundleError("this bundle has no TensorRT engine; export the model again with --target tensorrt")
    lack = missing(found[0].library)
    if lack:
        raise BackendMissing(f"{lack}; the same bundle runs here with backend='onnxruntime'")
    cuda = importlib.import_module("cuda.bindings.runtime")
    engine = choose_engine(found, Device(cuda).capability())
    lack = missing(engine.library)
    if lack:
        raise BackendMissing(lack)
    return engine, cuda


def open_session(folder: Path, manifest: Manifest, options: Options) -> TensorRTSession:
    """Open the engine that fits this machine's GPU; `options` has nothing that applies here.

    Raises:
        BundleError: there is no engine in the bundle.
        BackendMissing: this machine lacks the library, the GPU or its driver.
    """
    del options
    engine, cuda = _engine_for_this_gpu(manifest)
    trt = importlib.import_module(engine.library)
    if engine.plugins:
        register_plugins(trt, engine.file)
    return TensorRTSession((folder / engine.file).read_bytes(), manifest.spec.ports, trt, cuda, engine.file)
