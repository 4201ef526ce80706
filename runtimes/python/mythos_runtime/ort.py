"""The onnxruntime backend: model.onnx on the CPU, or on CUDA where onnxruntime-gpu has it.

Past buffers are handed over as they are: on the CPU `InferenceSession.run` wraps a C-contiguous array without a copy
(measured: 11 us for a call with 512 MB of past, no memory touched; io_binding and OrtValue are slower, not leaner). On
CUDA they are OrtValues of the device, bound; only tokens go there and logits come back (built, not executed).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mythos_runtime.cuda_ops import CUDA_LIBRARY, CUDA_OPS, wants_cuda_ops
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RequestError
from mythos_runtime.linked import open_links
from mythos_runtime.manifest import Manifest
from mythos_runtime.op_library import OP_LIBRARY_VARIABLE, find_op_library
from mythos_runtime.ort_opening import PROVIDERS, error_types, first_line, open_inference, wanted_providers
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.session import OpLibrary, Options, graph_file
from mythos_runtime.stores import HOST, AddressStore, CudaMemory, Held, Memory, Store

_ORT_TYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(float)": "float32",
}


def missing() -> str | None:
    """What this machine lacks for this backend."""
    try:
        importlib.import_module("onnxruntime")
    except ImportError as error:
        return f"ONNX Runtime is not installed ({error}): pip install onnxruntime"
    return None


class OrtSession:
    """A graph in ONNX Runtime; see `mythos_runtime.session.Session`.

    Attributes:
        inference: its onnxruntime.InferenceSession. failures: what that may raise when it runs.
        linked: inputs that are the same at every call: weights in files outside of the bundle.
        provider: cpu or cuda.
    """

    name = "onnxruntime"

    def __init__(
        self,
        file: Path,
        ports: Ports,
        options: Options,
        entries: Mapping[str, str] | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Load the graph, which has these ports.

        Args:
            entries: of ONNX Runtime's session configuration, beside those that are set here.
            weights: those that the graph takes as inputs, if it does (`linked.open_links`).

        Raises:
            BackendMissing: no ONNX Runtime, no such provider, no kernel for an operator.
            RequestError: a library of operators for the CPU is named, and the session is on CUDA.
            BundleError: the graph is damaged or its ports are not the contract's.
        """
        lack = missing()
        if lack:
            raise BackendMissing(lack)
        ort = importlib.import_module("onnxruntime")
        self.failures: tuple[type[BaseException], ...] = (*error_types(), MemoryError)
        if any(port.dtype == "bfloat16" for port in (*ports.inputs, *ports.outputs)):
            raise BackendMissing(
                "this bundle's ports are bfloat16, which ONNX Runtime's Python API cannot pass as numpy arrays; export "
                "with --precision fp16 or fp32, or load it with backend='eager'"
            )
        providers = wanted_providers(ort, options.provider)
        self.inference, library = open_inference(ort, file, options, providers, entries or {})
        if options.provider == "auto" and self.inference.get_providers()[0] != providers[0]:
            del self.inference  # or the model would be in memory twice
            providers = [PROVIDERS["cpu"]]  # with the CPU's operators
            self.inference, library = open_inference(ort, file, options, providers, entries or {})
        active = self.inference.get_providers()
        if options.provider == "cuda" and PROVIDERS["cuda"] not in active:
            # onnxruntime-gpu falls back to the CPU without a word that a program could catch.
            raise BackendMissing(
                f"CUDA was asked for, but ONNX Runtime fell back to {active[0]}: its CUDA provider did not start; "
                "check the NVIDIA driver and the CUDA and cuDNN versions that this onnxruntime-gpu wants"
            )
        self._outputs = [port.name for port in ports.outputs]
        self._new = {port.name: numpy_dtype(port.dtype) for port in ports.outputs if port.role == "new"}
        self.provider = "cpu" if active[0] == PROVIDERS["cpu"] else "cuda"
        if self.provider != "cpu" and options.op_library not in ("auto", None):
            raise RequestError(
                f"the operator library {options.op_library} is for the CPU, and this session is on CUDA: take "
                "provider='cpu', or name no library"
            )
        self.store: Store = HOST
        if self.provider == "cuda" and self._new and _cuda_runtime() is not None:
            self.store = self.own_store(CudaMemory(_cuda_runtime()))
        taken, given = self.inference.get_inputs(), weights or {}
        self.linked = {value.name: given[value.name] for value in taken if value.name in given}
        if self.linked and self.provider != "cpu":
            raise links_need_cpu(file)
        _compare(file, ports.inputs, [value for value in taken if value.name not in self.linked])
        _compare(file, ports.outputs, self.inference.get_outputs())
        threads = options.threads or "all"
        on_kernels = library is not None and library.name == CUDA_LIBRARY
        self.runs_rows = active[0] == PROVIDERS["cpu"] or on_kernels
        self.operators = "native" if library else "portable"
        words = f"native operators of {library.name}" if library else "portable operators"
        if on_kernels:
            words += " on the bundle's kernels (built, not executed)"
        words += _not_taken(self.provider, options.op_library)
        self.description = f"onnxruntime {ort.__version__}, {active[0]}, {threads} threads, {words}"

    def own_store(self, memory: Memory) -> Store:
        """Caches in OrtValues, where the graph runs."""
        value = importlib.import_module("onnxruntime").OrtValue

        def upload(array: np.ndarray) -> Any:
            try:
                if self.provider == "cpu":  # where a value is a view of an array, which has to outlive it
                    return _Kept(value.ortvalue_from_numpy(array), array)
                return _Kept(value.ortvalue_from_numpy(array, self.provider, 0), None)
            except self.failures as error:
                raise BackendFailed(f"ONNX Runtime gives a cache no memory: {first_line(error)}") from error

        return AddressStore(memory, upload, lambda held: held.value.value.numpy(), lambda kept: kept.value.data_ptr())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if any(isinstance(value, Held) for value in inputs.values()):
            return self._run_bound(inputs)
        try:
            values = self.inference.run(self._outputs, {**inputs, **self.linked})
        except self.failures as error:
            raise call_error(error) from error
        return dict(zip(self._outputs, values, strict=True))

    def _run_bound(self, inputs: Mapping[str, np.ndarray | Held]) -> dict[str, Any]:
        """With the past, and the new entries, where the graph runs."""
        binding = self.inference.io_binding()
        for name, value in inputs.items():
            if isinstance(value, Held):
                binding.bind_ortvalue_input(name, value.value.value)
            else:
                binding.bind_cpu_input(name, value)
        self.bind_linked(binding)
        for name in self._outputs:
            binding.bind_output(name, self.provider if name in self._new else "cpu")
        try:
            self.inference.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except self.failures as error:
            raise call_error(error) from error
        found: dict[str, Any] = {}
        for name, value in zip(self._outputs, binding.get_outputs(), strict=True):
            held = name in self._new
            found[name] = Held(_Kept(value, None), tuple(value.shape()), self._new[name]) if held else value.numpy()
        return found

    def bind_linked(self, binding: Any) -> None:
        """Give a binding the weights that are the same at every call."""
        value = importlib.import_module("onnxruntime").OrtValue
        for name, array in self.linked.items():
            binding.bind_ortvalue_input(name, value.ortvalue_from_numpy(array))


class _Kept(NamedTuple):
    """An OrtValue, and the array that it is a view of, if it is one."""

    value: Any
    array: np.ndarray | None


def _cuda_runtime() -> Any:
    """cuda.bindings.runtime, which copies parts of a cache; None where it is not installed, and caches cross."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        return None


def _not_taken(device: str, choice: OpLibrary) -> str:
    """What the environment asks for and such a session does not have, in words for its description.

    Raises:
        RequestError: a variable is set to what means nothing.
    """
    if device == "cpu":
        return f" ({CUDA_OPS} is for CUDA alone)" if wants_cuda_ops() and choice == "auto" else ""
    named = os.environ.get(OP_LIBRARY_VARIABLE, "none")
    return f" ({OP_LIBRARY_VARIABLE} is for the CPU alone)" if named != "none" and choice == "auto" else ""


def call_error(error: BaseException) -> BackendFailed:
    """What ONNX Runtime raised while it ran, in a line."""
    return BackendFailed(f"ONNX Runtime could not finish the call: {first_line(error)}")


def links_need_cpu(file: Path) -> BackendMissing:
    """Of a graph, or a bundle, that is asked to run on CUDA."""
    return BackendMissing(
        f"{file} has its weights in files outside of the bundle, which are mapped on the CPU alone: take "
        "provider='cpu', or export the model without --weights link"
    )


class RowsAlone:
    """In place of a session on the whole model, which a bundle has none of whose experts are in shards."""

    name, operators, provider, runs_rows = "onnxruntime", "native", "cpu", True

    def __init__(self, count: int, options: Options) -> None:
        self.operators = "native" if find_op_library(options.op_library) else "portable"
        self.description = f"onnxruntime, the row graphs, experts in {count} shards, {self.operators} operators"
        self.description += _not_taken("cpu", options.op_library)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise RequestError(
            "the experts of this bundle are in shards, so the model is not there as one graph: give forward a cache "
            "(new_cache), generate, or serve it"
        )


def open_session(folder: Path, manifest: Manifest, options: Options) -> OrtSession | RowsAlone:
    """Open the bundle's ONNX graph; see `OrtSession`. BackendMissing also where CUDA is asked for experts in shards."""
    if manifest.shards is not None:
        if options.provider == "cuda":
            raise BackendMissing(
                f"CUDA was asked for, but the experts of {folder} are in shards, which run on the CPU: leave the "
                "provider to the runtime, or export the model without --expert-shards"
            )
        return RowsAlone(len(manifest.shards.counts), options)
    weights = open_links(folder, manifest.links, options.weights, options.hash_weights)
    return OrtSession(graph_file(folder, manifest, "onnxruntime"), manifest.spec.ports, options, weights=weights)


def _compare(file: Path, expected: tuple[Port, ...], found: list[Any]) -> None:
    """Names and types of a graph against its ports, so that a mismatch shows at load."""
    values = {value.name: value for value in found}
    for port in expected:
        if port.name not in values:
            raise BundleError(f"{file} lacks the port {port}; export the model again")
        value = values.pop(port.name)
        dtype = _ORT_TYPES.get(value.type)
        if dtype != port.dtype:
            raise BundleError(f"{file}: the port {port.name} is {dtype}, expected {port}; export the model again")
        _compare_shape(file, port, value.shape)
    if values:
        raise BundleError(f"{file} has the port {min(values)}, which this runtime does not know; update mythos_runtime")


def _compare_shape(file: Path, port: Port, shape: list[Any]) -> None:
    """Sizes that the graph fixes: caches and logits are allocated as the manifest says, so it must not say more."""
    if len(shape) != len(port.dims):
        raise BundleError(
            f"{file}: the port {port.name} has {len(shape)} dimensions, expected {port}; export the model again"
        )
    for axis, (size, dim) in enumerate(zip(shape, port.dims, strict=True)):
        if isinstance(size, int) and size >= 0 and isinstance(dim, int) and size != dim:
            raise BundleError(
                f"{file}: dimension {axis} of the port {port.name} is {size}, expected {port}; export the model again"
            )
