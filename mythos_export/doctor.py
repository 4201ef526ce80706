"""What this machine can build and run."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass

import onnxruntime

from mythos_export.targets.tensorrt_build import TensorRTBuildError, choose_backend, inspect_environment
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
    except TensorRTBuildError as error:
        findings.append(Finding("build TensorRT engines", False, "no TensorRT", str(error)))
    lack = missing_for("tensorrt")
    found = f"GPUs: {', '.join(f'SM {sm}' for sm in environment.gpus)}" if environment.gpus else "no NVIDIA GPU"
    findings.append(Finding("run TensorRT engines", lack is None, found, lack or ""))
    compiler = shutil.which("c++") or shutil.which("g++")
    cmake = shutil.which("cmake")
    native = compiler is not None and cmake is not None
    findings.append(
        Finding(
            "build native kernels",
            native,
            f"{compiler or 'no C++ compiler'}, {cmake or 'no cmake'}",
            "" if native else "install g++ and cmake",
        )
    )
    return findings


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
