"""The eager backend: model.pt2, the captured program, in PyTorch.

Load only bundles that you trust: PyTorch's archive reader was not written for hostile files.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.ports import Ports, numpy_dtype
from mythos_runtime.row_ports import ROWS
from mythos_runtime.session import Options, graph_file
from mythos_runtime.stores import HOST, Held, Store, TorchStore
from mythos_runtime.torch_device import TorchDevice, missing, open_device

__all__ = ["EagerSession", "missing", "open_session"]

DEVICE_LOOP = "MYTHOS_DEVICE_LOOP"
"""Set to "1", a program's loop on CUDA is one graph that halts by itself (`device_loop`); set to "compiled", PyTorch
compiles its iterations first. Built, not executed, and therefore not the default, in which the host reads the condition
before every loop."""


class EagerSession:
    """model.pt2 in PyTorch; see `mythos_runtime.session.Session`.

    Attributes:
        device: where it runs; the row graphs of the bundle run there, too.
    """

    name = "eager"
    operators = "engine"

    def __init__(self, file: Path, ports: Ports, options: Options, runs_rows: bool = False) -> None:
        """Load the program, which has these ports. CUDA has not been executed yet.

        Args:
            options: see `torch_device.open_device`, whose errors it raises, and those of `TorchDevice.load`.
            runs_rows: the bundle holds the row graphs as a program.

        Raises:
            BundleError: its ports are not the contract's.
        """
        self.device = open_device(file.parent, options)
        self.runs_rows = runs_rows
        program = self.device.load(file)
        self._inputs = [port.name for port in ports.inputs]
        self._outputs = [port.name for port in ports.outputs]
        self._new = {port.name: numpy_dtype(port.dtype) for port in ports.outputs if port.role == "new"}
        found = [len(program.graph_signature.user_inputs), len(program.graph_signature.user_outputs)]
        if found != [len(self._inputs), len(self._outputs)]:
            raise BundleError(
                f"{file} has {found[0]} inputs and {found[1]} outputs, expected {len(self._inputs)} and "
                f"{len(self._outputs)}; export the model again"
            )
        self._module = program.module()
        self.store: Store = HOST if self.device.name == "cpu" else self.own_store()
        way = os.environ.get(DEVICE_LOOP, "")
        if self.device.name != "cpu" and way:
            if way not in ("1", "compiled"):
                raise RequestError(f"{DEVICE_LOOP} is {way!r}, expected 1 or compiled, or nothing at all")
            self._module = _looped_on_device(self._module, self.device, way == "compiled")
            self.device.operators.append(
                f"the loop as a CUDA graph{', compiled' * (way == 'compiled')} (built, not executed)"
            )
        self.description = self.device.description

    def own_store(self) -> Store:
        """Caches in torch tensors, where the program runs."""
        return TorchStore(self.device.to_torch, self.device.to_numpy)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        device = self.device
        stay = self._new if any(isinstance(value, Held) for value in inputs.values()) else {}
        try:
            tensors = [device.to_torch(inputs[name]) for name in self._inputs]  # its arguments are the ports, in order
            with device.torch.no_grad():
                result = self._module(*tensors)
            return {
                name: Held(tensor, tuple(tensor.shape), stay[name]) if name in stay else device.to_numpy(tensor)  # type: ignore[misc]
                for name, tensor in zip(self._outputs, result, strict=True)
            }
        except (RuntimeError, AssertionError, ValueError, MemoryError) as error:
            raise BackendFailed(f"torch could not finish the call: {error}") from error


def _looped_on_device(module: Any, device: TorchDevice, compiled: bool) -> Any:
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise BackendMissing(
            f"{DEVICE_LOOP} needs the package cuda-bindings ({error}): pip install 'mythos-runtime[cuda]'"
        ) from error
    graphs = importlib.import_module("mythos_runtime.device_loop.graphs")
    program = importlib.import_module("mythos_runtime.device_loop.program")
    return program.looped(module, graphs.CudaGraphs(device.torch, driver), device.plain[0] if compiled else None)


def open_session(folder: Path, manifest: Manifest, options: Options) -> EagerSession:
    """Open the bundle's captured program; see `EagerSession`."""
    file = graph_file(folder, manifest, "eager")
    return EagerSession(file, manifest.spec.ports, options, ROWS in manifest.files)
