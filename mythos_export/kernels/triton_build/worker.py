"""Compiles kernels in a process of its own, in the environment that `build.py` gives it (`mythos_export.workers`).

Here alone triton is imported: no interpreter, a cache of its own, no line information (which would carry this machine's
paths into the files).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mythos_export.errors import TargetError, ToolFailed
from mythos_export.kernels.launch_plan import POINTER_ALIGNMENT, KernelSpec
from mythos_export.kernels.triton_build.resources import check_resources, read_resources
from mythos_export.progress import Progress

# Triton appends them to every kernel: pointers to global and to profiling scratch. Null where their sizes are 0.
TRAILING = 2
WARP = 32


class Compiler:
    """What the worker is asked for."""

    def __init__(self, report: Progress) -> None:
        self.report = report

    def compile(self, kernels: list[dict[str, Any]], architectures: list[int], folder: str) -> dict[str, Any]:
        """Write every kernel for every architecture into the folder; what the manifest says of them."""
        import triton

        described: list[dict[str, Any]] = []
        for index, values in enumerate(kernels):
            spec = KernelSpec.from_json(values)
            function = _function(spec)
            binaries = []
            for number, architecture in enumerate(architectures):
                done = (index * len(architectures) + number) / (len(kernels) * len(architectures))
                self.report(f"{spec.name} for SM {architecture}", done)
                binaries.append(_compile(spec, function, architecture, Path(folder)))
            known = {**spec.to_json(), "source_sha256": function.cache_key, "binaries": binaries}
            described.append({**known, "threads": WARP * spec.num_warps})
        return {"kernels": described, "tools": {"triton": triton.__version__, **_ptxas_versions()}}


def _function(spec: KernelSpec) -> Any:
    """The jitted function, checked against the record's parameters."""
    from mythos_export.kernels.triton_run import load_kernel

    function = load_kernel(spec.source)
    expected = [argument.name for argument in spec.arguments] + list(spec.constants)
    if function.arg_names != expected:
        raise TargetError(
            f"{spec.name}: {spec.source} takes {', '.join(function.arg_names)}, its record says {', '.join(expected)}; "
            "make the record in plan.py agree with the kernel"
        )
    return function


def _compile(spec: KernelSpec, function: Any, architecture: int, folder: Path) -> dict[str, Any]:
    """One kernel for one architecture: cubin and PTX in `folder`, and what the manifest says of them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {argument.name: argument.type for argument in spec.arguments}
    signature |= dict.fromkeys(spec.constants, "constexpr")
    divisible = [["tt.divisibility", POINTER_ALIGNMENT]]
    attributes = {(i,): divisible for i, a in enumerate(spec.arguments) if a.is_pointer or a.divisible}
    first = len(spec.arguments)
    constants = {(first + i,): value for i, value in enumerate(spec.constants.values())}
    source = ASTSource(function, signature, constants, attributes)
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log):
            compiled = triton.compile(
                source,
                target=GPUTarget("cuda", architecture, WARP),
                options={"num_warps": spec.num_warps, "num_stages": spec.num_stages},
            )
    except Exception as error:  # triton's and LLVM's errors share no base class
        raise ToolFailed(
            f"{spec.name} for sm_{architecture} was not compiled by triton {triton.__version__}: "
            f"{type(error).__name__}: {str(error).strip()[-2000:]}"
        ) from error
    resources = read_resources(log.getvalue(), compiled.metadata.shared)
    check_resources(spec.name, architecture, resources)
    ptx = compiled.asm["ptx"]
    parameters = len(set(re.findall(r"_param_\d+", ptx)))
    if parameters != first + TRAILING:
        raise ToolFailed(
            f"{spec.name} for sm_{architecture} has {parameters} parameters, expected the {first} declared and "
            f"triton's {TRAILING} scratch pointers; its calling convention changed: use triton 3.8.0"
        )
    stem = f"{spec.name}.sm_{architecture}"
    return {
        "architecture": f"sm_{architecture}",
        "target": re.findall(r"^\.target\s+([\w]+)", ptx, re.MULTILINE)[0],
        "ptx_version": re.findall(r"^\.version\s+([\d.]+)", ptx, re.MULTILINE)[0],
        "entry": compiled.metadata.name,
        "cubin": _write(folder / f"{stem}.cubin", compiled.asm["cubin"]),
        "ptx": _write(folder / f"{stem}.ptx", ptx.encode()),
        **asdict(resources),
        "global_scratch_bytes": compiled.metadata.global_scratch_size,
        "profile_scratch_bytes": compiled.metadata.profile_scratch_size,
    }


def _write(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _ptxas_versions() -> dict[str, str]:
    """Triton ships two: one for Blackwell, one for what came before."""
    from triton import knobs

    return {"ptxas": knobs.nvidia.ptxas.version, "ptxas_blackwell": knobs.nvidia.ptxas_blackwell.version}
