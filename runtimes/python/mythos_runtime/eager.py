"""The eager backend: model.pt2, the captured program, in PyTorch. Only this module and `program` import torch.

Load only bundles that you trust: PyTorch's archive reader was not written for hostile files.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.ports import Ports, numpy_dtype
from mythos_runtime.program import load_program
from mythos_runtime.session import Options, graph_file
from mythos_runtime.stores import HOST, Held, Store, TorchStore

OPERATORS_ENTRY_POINT = "mythos_runtime.eager_operators"
"""Packages that register `torch.ops.mythos.*` name the module that does so under this entry point group."""

KERNELS_ENTRY_POINT = "mythos_runtime.eager_kernels"
"""Packages with faster kernels for them name a function under this one: given a device type ("cpu" or "cuda"), and for
bundles that bring compiled kernels their folder, it registers what it has and returns what then computes the operators,
in words."""

KERNELS_FOLDER = "kernels"
_KERNELS_MANIFEST = "kernels.json"

DEVICE_LOOP = "MYTHOS_DEVICE_LOOP"
"""Set to "1", a program's loop on CUDA is one graph that halts by itself (`device_loop`); set to "compiled", PyTorch
compiles its iterations first. Built, not executed, and therefore not the default, in which the host reads the condition
before every loop."""

_OPERATOR = re.compile(rb'"target":\s*"torch\.ops\.(\w+)\.(\w+)')


def missing() -> str | None:
    """What this machine lacks for this backend."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        return f"PyTorch is not installed ({error}): pip install torch"
    return None


class EagerSession:
    """model.pt2 in PyTorch; see `mythos_runtime.session.Session`."""

    name = "eager"
    operators = "engine"
    runs_rows = False

    def __init__(self, file: Path, ports: Ports, options: Options) -> None:
        """Load the program, which has these ports.

        `options.threads` sets torch's thread count for the whole process; `options.provider` chooses the device: auto
        is CUDA where torch has it. CUDA has not been executed yet.

        Raises:
            BackendMissing: no torch, no such device, or an operator that no installed package registers.
            BundleError: the file is damaged or its ports are not the contract's.
        """
        lack = missing()
        if lack:
            raise BackendMissing(lack)
        self._torch: Any = importlib.import_module("torch")
        if options.threads is not None:
            self._torch.set_num_threads(options.threads)
        self._device = self._choose_device(options.provider)
        plain = [entry.load() for entry in importlib.metadata.entry_points(group=OPERATORS_ENTRY_POINT)]
        self._check_operators(file)
        compiled = file.parent / KERNELS_FOLDER
        given = (self._device, compiled) if (compiled / _KERNELS_MANIFEST).is_file() else (self._device,)
        operators = [entry.load()(*given) for entry in importlib.metadata.entry_points(group=KERNELS_ENTRY_POINT)] or [
            "plain PyTorch"
        ]
        program = load_program(file)
        self._inputs = [port.name for port in ports.inputs]
        self._outputs = [port.name for port in ports.outputs]
        self._new = {port.name: numpy_dtype(port.dtype) for port in ports.outputs if port.role == "new"}
        found = [len(program.graph_signature.user_inputs), len(program.graph_signature.user_outputs)]
        if found != [len(self._inputs), len(self._outputs)]:
            raise BundleError(
                f"{file} has {found[0]} inputs and {found[1]} outputs, expected {len(self._inputs)} and "
                f"{len(self._outputs)}; export the model again"
            )
        if self._device != "cpu":
            passes = importlib.import_module("torch.export.passes")
            program = passes.move_to_device_pass(program, self._device)
        self._module = program.module()
        self.store: Store = HOST if self._device == "cpu" else self.own_store()
        way = os.environ.get(DEVICE_LOOP, "")
        if self._device != "cpu" and way:
            if way not in ("1", "compiled"):
                raise RequestError(f"{DEVICE_LOOP} is {way!r}, expected 1 or compiled, or nothing at all")
            self._module = self._looped_on_device(self._module, plain[0] if way == "compiled" else None)
            operators.append(f"the loop as a CUDA graph{', compiled' * (way == 'compiled')} (built, not executed)")
        where = f"CPU, {self._torch.get_num_threads()} threads"
        if self._device != "cpu":
            where = str(self._torch.cuda.get_device_name())
        self.description = f"torch {self._torch.__version__}, {where}, operators: {', '.join(operators)}"

    def own_store(self) -> Store:
        """Caches in torch tensors, where the program runs."""
        return TorchStore(self._to_torch, self._to_numpy)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [self._to_torch(inputs[name]) for name in self._inputs]  # its arguments are the ports, in their order
        stay = self._new if any(isinstance(value, Held) for value in inputs.values()) else {}
        try:
            with self._torch.no_grad():
                result = self._module(*tensors)
        except (RuntimeError, AssertionError, ValueError, MemoryError) as error:
            raise BackendFailed(f"torch could not finish the call: {error}") from error
        return {
            name: Held(tensor, tuple(tensor.shape), stay[name]) if name in stay else self._to_numpy(tensor)  # type: ignore[misc]
            for name, tensor in zip(self._outputs, result, strict=True)
        }

    def _choose_device(self, provider: str) -> str:
        if provider == "cuda" and not self._torch.cuda.is_available():
            raise BackendMissing(
                f"CUDA was asked for, but torch {self._torch.__version__} finds none: check the NVIDIA driver, and "
                "that torch is a CUDA build"
            )
        return "cuda" if provider != "cpu" and self._torch.cuda.is_available() else "cpu"

    def _looped_on_device(self, module: Any, plain: Any) -> Any:
        try:
            driver = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise BackendMissing(
                f"{DEVICE_LOOP} needs the package cuda-bindings ({error}): pip install 'mythos-runtime[cuda]'"
            ) from error
        graphs = importlib.import_module("mythos_runtime.device_loop.graphs")
        program = importlib.import_module("mythos_runtime.device_loop.program")
        return program.looped(module, graphs.CudaGraphs(self._torch, driver), plain)

    def _check_operators(self, file: Path) -> None:
        """Name what is not registered: torch itself says so only in its log."""
        try:
            with zipfile.ZipFile(file) as archive:
                graphs = [name for name in archive.namelist() if "/models/" in name and name.endswith(".json")]
                used = {match for name in graphs for match in _OPERATOR.findall(archive.read(name))}
        except (OSError, zipfile.BadZipFile) as error:
            raise BundleError(f"{file} is not a torch.export archive: {error}") from error
        names = sorted((space.decode(), operator.decode()) for space, operator in used)
        lacking = [f"{space}::{op}" for space, op in names if not hasattr(getattr(self._torch.ops, space), op)]
        if lacking:
            raise BackendMissing(
                f"{file} uses the torch operators {', '.join(lacking)}, which nothing here registers: pip install "
                "mythos-export, or import the module that registers them (mythos_model.ops) before loading"
            )

    def _to_torch(self, array: np.ndarray | Held) -> Any:
        if isinstance(array, Held):
            return array.value
        if array.dtype.name == "bfloat16":
            return self._torch.from_numpy(array.view(np.uint16)).view(self._torch.bfloat16).to(self._device)
        return self._torch.from_numpy(array).to(self._device)

    def _to_numpy(self, tensor: Any) -> np.ndarray:
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype == self._torch.bfloat16:
            return np.asarray(tensor.view(self._torch.uint16).numpy().view(numpy_dtype("bfloat16")))
        return np.asarray(tensor.numpy())


def open_session(folder: Path, manifest: Manifest, options: Options) -> EagerSession:
    """Open the bundle's captured program; see `EagerSession`."""
    return EagerSession(graph_file(folder, manifest, "eager"), manifest.spec.ports, options)
