"""A stand-in for a GPU in this process: the driver that hands over every launch, Triton's interpreter that executes it,
and the library of operators for ONNX Runtime, built for the CPU provider.

Import it first, in a program of its own: the stand-in is this process's libcuda for good.
"""

from __future__ import annotations

import ctypes
import json
import os
import traceback
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from case_calls import Calls

from mythos_export.kernels.cuda.signatures import described
from mythos_export.kernels.launch_plan import KernelSpec
from mythos_export.kernels.triton_build import FORMAT_VERSION
from mythos_runtime.cuda_ops import KERNELS_ENTRY
from mythos_runtime.files import describe

BUILD = Path(__file__).parents[3] / "build" / "kernels"
LIBRARY, STAND_IN = BUILD / "libmythos_cuda_ops_cpu.so", BUILD / "stand_in.so"
CAPABILITY = 80
_SHARED = 60_000  # more than a kernel has without asking
_DTYPES = {
    **{"*fp32": torch.float32, "*fp16": torch.float16, "*i32": torch.int32, "*i64": torch.int64},
    **{"*i1": torch.bool, "*i8": torch.int8, "*u8": torch.uint8},
}
_SCALARS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
_ON_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
)


class Gpu:
    """What launches: kernels by name are interpreted, and noted as (name, grid, threads, scalars). Those of other GPUs
    than the current one are refused."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL(str(STAND_IN), ctypes.RTLD_GLOBAL)  # its soname is the driver's
        self.driver.stand_in_held.restype = self.driver.stand_in_copied.restype = ctypes.c_size_t
        self.specs: dict[str, KernelSpec] = {}
        self.launched: list[Any] = []
        self.error = ""
        self._called = _ON_LAUNCH(self._launch)
        self.enter(0, CAPABILITY)

    def enter(self, context: int, capability: int) -> None:
        """Make that context current, on a GPU of that capability."""
        self.capability = capability
        self.driver.stand_in_context(context)
        self.driver.stand_in(capability, self._called)

    def _launch(self, image: bytes, entry: bytes, grid: Any, threads: int, shared: int, stream: Any, given: Any) -> int:
        try:
            name, architecture = image.decode().split()
            assert architecture == f"sm_{self.capability}"
            self._interpret(self.specs[name], entry.decode(), tuple(grid[:3]), threads, shared, given)
        except BaseException:  # it would be lost in the library that calls this
            self.error = traceback.format_exc()
            return 999
        return 0

    def _interpret(
        self, spec: KernelSpec, entry: str, grid: tuple[int, ...], threads: int, shared: int, given: Any
    ) -> None:
        from mythos_export.kernels.triton_run import load_kernel

        assert (entry, shared, threads) == (f"{spec.name}_entry", _SHARED, 32 * spec.num_warps)
        values: list[Any] = []
        for argument, place in zip(spec.arguments, given, strict=False):
            kind = ctypes.c_uint64 if argument.is_pointer else _SCALARS[argument.type]
            value = kind.from_address(place).value
            values.append(_tensor(value, _DTYPES[argument.type]) if argument.is_pointer else value)
        count = len(spec.arguments)
        assert [ctypes.c_uint64.from_address(given[count + i]).value for i in (0, 1)] == [0, 0]  # Triton's own scratch
        scalars = [value for value, a in zip(values, spec.arguments, strict=True) if not a.is_pointer]
        self.launched.append((spec.name, list(grid), threads, scalars))
        load_kernel(spec.source)[grid](*values, **spec.constants)


def _tensor(address: int, dtype: torch.dtype) -> torch.Tensor:
    """What begins at an address: the interpreter reads and writes from there, however long it says that it is."""
    if not address:
        return torch.empty(0, dtype=dtype)
    whole = (ctypes.c_char * 8).from_address(address)  # whatever the type: empty buffers share addresses with others
    return torch.frombuffer(whole, dtype=dtype)


def write_kernels(folder: Path, calls: Calls, *capabilities: int) -> dict[str, KernelSpec]:
    """As `triton_build` writes the kernels of these calls, but the code of each is its name and GPU (`CAPABILITY` where
    none is said); returns them by name."""
    plans = {(plan.operator, plan.variant, plan.path): plan for _, found in calls for plan in found}
    specs = {spec.name: spec for plan in plans.values() for spec in plan.launches}
    architectures = [f"sm_{capability}" for capability in capabilities or (CAPABILITY,)]
    kernels = []
    for spec in specs.values():
        binaries = []
        for architecture in architectures:
            cubin = folder / f"{spec.name}.{architecture}.cubin"
            cubin.write_text(f"{spec.name} {architecture}")
            binary = {"architecture": architecture, "entry": f"{spec.name}_entry", "shared_bytes": _SHARED}
            binary |= {"cubin": {"file": cubin.name, **vars(describe(cubin))}}
            binaries.append({**binary, "global_scratch_bytes": 0, "profile_scratch_bytes": 0})
        kernels.append({**spec.to_json(), "threads": 32 * spec.num_warps, "binaries": binaries})
    document = {"format_version": FORMAT_VERSION, "architectures": architectures, "kernels": kernels}
    document |= {"plans": [plan.to_json() for plan in plans.values()], **described(calls)}
    (folder / "kernels.json").write_text(json.dumps(document))
    return specs


def open_session(model: bytes, folder: Path) -> ort.InferenceSession:
    """A graph on the library."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(KERNELS_ENTRY, str(folder))
    options.register_custom_ops_library(str(LIBRARY))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
