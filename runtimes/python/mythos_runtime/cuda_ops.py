"""The operators on ONNX Runtime's CUDA provider: a library that launches the kernels that a bundle brings compiled."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from mythos_runtime.errors import BackendMissing, RequestError
from mythos_runtime.session import NATIVE, OpLibrary, Options

CUDA_LIBRARY = "libmythos_cuda_ops.so"
KERNELS_FOLDER, KERNELS_MANIFEST = "kernels", "kernels.json"  # of a bundle
KERNELS_ENTRY = "mythos.kernels"
"""The entry of a session's configuration that tells the library the folder of kernels."""

CUDA_OPS = "MYTHOS_CUDA_OPS"
"""Set to "1", operators on ONNX Runtime's CUDA provider are the Triton kernels that a bundle of target cuda brings
compiled. Built, not executed, and therefore not the default, which is their portable bodies."""


def wants_cuda_ops() -> bool:
    """Whether the variable asks for them. Raises RequestError where it is set to what means nothing."""
    way = os.environ.get(CUDA_OPS, "0")
    if way not in ("0", "1"):
        raise RequestError(f"{CUDA_OPS} is {way!r}, expected 0 or 1, or nothing at all")
    return way == "1"


def rows_on_cuda(options: Options) -> bool:
    """Whether ONNX Runtime runs the row graphs in its CUDA provider: where the variable asks for the kernels there, and
    the provider is CUDA, or left to a runtime that has it. Raises as `wants_cuda_ops`."""
    if not wants_cuda_ops() or options.provider == "cpu" or options.op_library != "auto":
        return False
    available = importlib.import_module("onnxruntime").get_available_providers()
    return options.provider == "cuda" or "CUDAExecutionProvider" in available


def find_cuda_library(kernels: Path, choice: OpLibrary = "auto") -> Path | None:
    """The library of operators for ONNX Runtime's CUDA provider, which launches the compiled kernels in a folder of the
    bundle; None to run the operators' portable bodies there.

    "auto" looks at the variable `CUDA_OPS`; a path names a library for the CPU, and so none here.

    Raises:
        BackendMissing: it is asked for, and is not there, or the bundle has no kernels.
        RequestError: the variable is set to what means nothing.
    """
    if not wants_cuda_ops() or choice is None:
        return None
    if not (kernels / KERNELS_MANIFEST).is_file():
        raise BackendMissing(f"{CUDA_OPS} is 1, but {kernels.parent} has no kernels: export it with --target cuda")
    lack = missing_cuda_library()
    if lack is not None:
        raise BackendMissing(f"{CUDA_OPS} is 1, but {lack}")
    return NATIVE / CUDA_LIBRARY


def missing_cuda_library() -> str | None:
    """Why there is no such library here, or None."""
    path = NATIVE / CUDA_LIBRARY
    if path.is_file():
        return None
    return f"{path} is not there: it is built on Linux, beside the CPU's operators; run make native in the source"
