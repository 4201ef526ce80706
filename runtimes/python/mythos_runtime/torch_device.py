"""PyTorch on a device, with the operators of a bundle's programs: what the whole model's program and the row graphs'
have in common. Imports torch only when it is asked for.

Load only bundles that you trust: PyTorch's archive reader was not written for hostile files.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.cuda_ops import KERNELS_FOLDER, KERNELS_MANIFEST
from mythos_runtime.errors import BackendMissing, BundleError
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.program import Shared, load_program
from mythos_runtime.session import Options
from mythos_runtime.stores import Held

OPERATORS_ENTRY_POINT = "mythos_runtime.eager_operators"
"""Packages that register `torch.ops.mythos.*` name the module that does so under this entry point group."""

KERNELS_ENTRY_POINT = "mythos_runtime.eager_kernels"
"""Packages with faster kernels for them name a function under this one: given a device type ("cpu" or "cuda"), and for
bundles that bring compiled kernels their folder, it registers what it has and returns what then computes the operators,
in words."""

_OPERATOR = re.compile(rb'"target":\s*"torch\.ops\.(\w+)\.(\w+)')


def missing() -> str | None:
    """What this machine lacks for this."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        return f"PyTorch is not installed ({error}): pip install torch"
    return None


@dataclass
class TorchDevice:
    """A device, ready to run programs of one bundle.

    Attributes:
        torch: the module.
        name: cpu or cuda.
        operators: what computes them, in words, one entry a package.
        plain: the modules that register their plain forms.
        weights: that programs of the bundle have loaded; they share them.
    """

    torch: Any
    name: str
    operators: list[str]
    plain: list[Any]
    weights: Shared = field(default_factory=dict)

    @property
    def description(self) -> str:
        where = f"CPU, {self.torch.get_num_threads()} threads"
        if self.name != "cpu":
            where = str(self.torch.cuda.get_device_name())
        return f"torch {self.torch.__version__}, {where}, operators: {', '.join(self.operators)}"

    def load(self, file: Path) -> Any:
        """The ExportedProgram in a file of the bundle, on this device.

        Raises:
            BackendMissing: it calls an operator that no installed package registers.
            BundleError: the file is damaged.
        """
        self._check_operators(file)
        program = load_program(file, self.name, self.weights)
        if self.name != "cpu":
            program = importlib.import_module("torch.export.passes").move_to_device_pass(program, self.name)
        return program

    def to_torch(self, array: np.ndarray | Held) -> Any:
        """An array as a tensor on the device."""
        if isinstance(array, Held):
            return array.value
        if array.dtype.name == "bfloat16":
            return self.torch.from_numpy(array.view(np.uint16)).view(self.torch.bfloat16).to(self.name)
        return self.torch.from_numpy(array).to(self.name)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """A tensor as an array on the host."""
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype == self.torch.bfloat16:
            return np.asarray(tensor.view(self.torch.uint16).numpy().view(numpy_dtype("bfloat16")))
        return np.asarray(tensor.numpy())

    def _check_operators(self, file: Path) -> None:
        """Name what is not registered: torch itself says so only in its log."""
        try:
            with zipfile.ZipFile(file) as archive:
                graphs = [name for name in archive.namelist() if "/models/" in name and name.endswith(".json")]
                used = {match for name in graphs for match in _OPERATOR.findall(archive.read(name))}
        except (OSError, zipfile.BadZipFile) as error:
            raise BundleError(f"{file} is not a torch.export archive: {error}") from error
        names = sorted((space.decode(), operator.decode()) for space, operator in used)
        lacking = [f"{space}::{op}" for space, op in names if not hasattr(getattr(self.torch.ops, space), op)]
        if lacking:
            raise BackendMissing(
                f"{file} uses the torch operators {', '.join(lacking)}, which nothing here registers: pip install "
                "mythos-export, or import the module that registers them (mythos_model.ops) before loading"
            )


def open_device(folder: Path, options: Options) -> TorchDevice:
    """The device that `options.provider` names, for the bundle in a folder; auto is CUDA where torch has it.

    `options.threads` sets torch's thread count for the whole process.

    Raises:
        BackendMissing: no torch, or no such device, or one that has no instructions for the bundle's weights.
    """
    lack = missing()
    if lack:
        raise BackendMissing(lack)
    torch: Any = importlib.import_module("torch")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.provider == "cuda" and not torch.cuda.is_available():
        raise BackendMissing(
            f"CUDA was asked for, but torch {torch.__version__} finds none: check the NVIDIA driver, and that torch is "
            "a CUDA build"
        )
    name = "cuda" if options.provider != "cpu" and torch.cuda.is_available() else "cpu"
    plain = [entry.load() for entry in importlib.metadata.entry_points(group=OPERATORS_ENTRY_POINT)]
    compiled = folder / KERNELS_FOLDER
    given = (name, compiled) if (compiled / KERNELS_MANIFEST).is_file() else (name,)
    kernels = [entry.load()(*given) for entry in importlib.metadata.entry_points(group=KERNELS_ENTRY_POINT)]
    return TorchDevice(torch, name, kernels or ["plain PyTorch"], plain)
