"""What this machine can export and build, beside what it can run (`mythos_runtime.doctor`)."""

from __future__ import annotations

from importlib import metadata

from mythos_export.errors import ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.targets.tensorrt_build import choose_backend, inspect_environment
from mythos_runtime.doctor import Finding


def examine() -> list[Finding]:
    """Every ability of the exporter, the most needed first."""
    findings = [
        Finding("capture and lower", True, f"torch {metadata.version('torch')}, onnx {metadata.version('onnx')}")
    ]
    environment = inspect_environment()
    try:
        backend = choose_backend(environment)
        findings.append(Finding("build TensorRT engines", True, f"{backend.module} {backend.version}"))
    except ToolMissing as error:
        findings.append(Finding("build TensorRT engines", False, "no TensorRT", str(error)))
    lack = triton_build.missing()
    version = "" if lack else f"triton {metadata.version('triton')}"
    findings.append(Finding("compile GPU kernels", lack is None, version, lack or ""))
    gpus = ", ".join(f"SM {sm}" for sm in environment.gpus) or "no NVIDIA GPU"
    return [*findings, Finding("GPUs", None, gpus)]
