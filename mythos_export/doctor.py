"""What this machine can build and run."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

import onnxruntime

from mythos_export.errors import ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.targets.tensorrt_build import choose_backend, inspect_environment
from mythos_runtime.ort import find_op_library, why_no_op_library
from mythos_runtime.session import missing_for


@dataclass(frozen=True)
class Finding:
    """One ability: whether it works here, what was found, and what to install where it does not."""

    what: str
    works: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every ability, the most needed first."""
    findings = [Finding("capture and lower", True, f"torch {_version('torch')}, onnx {_version('onnx')}")]
    lack = missing_for("onnxruntime")
    findings.append(Finding("run ONNX on the CPU", lack is None, f"onnxruntime {_version('onnxruntime')}", lack or ""))
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    findings.append(
        Finding(
            "run ONNX on a GPU",
            cuda,
            "CUDA provider" if cuda else "no CUDA provider",
            "" if cuda else "replace onnxruntime by onnxruntime-gpu, on a machine with an NVIDIA GPU",
        )
    )
    environment = inspect_environment()
    try:
        backend = choose_backend(environment)
        findings.append(Finding("build TensorRT engines", True, f"{backend.module} {backend.version}"))
    except ToolMissing as error:
        findings.append(Finding("build TensorRT engines", False, "no TensorRT", str(error)))
    lack = triton_build.missing()
    findings.append(Finding("compile GPU kernels", lack is None, f"triton {_version('triton')}", lack or ""))
    lack = missing_for("tensorrt")
    found = f"GPUs: {', '.join(f'SM {sm}' for sm in environment.gpus)}" if environment.gpus else "no NVIDIA GPU"
    findings.append(Finding("run TensorRT engines", lack is None, found, lack or ""))
    findings.append(_native_operators())
    return findings


def _native_operators() -> Finding:
    """The CPU library of the mythos operators: the one that a session would load."""
    what = "run operators natively"
    lack = why_no_op_library()
    if lack is not None:
        return Finding(what, False, "portable function bodies", lack)
    return Finding(what, True, str(find_op_library()))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
