"""What this machine can run, and with what. Packages that can do more say so under the entry points FINDINGS."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mythos_runtime import cpp
from mythos_runtime.cuda_ops import CUDA_LIBRARY, missing_cuda_library
from mythos_runtime.engine.native import find_runtime_library, why_no_native_engine
from mythos_runtime.errors import BackendMissing
from mythos_runtime.op_library import find_op_library, why_no_op_library
from mythos_runtime.session import NATIVE, missing_for
from mythos_runtime.tensorrt.plugins import PLUGIN_LIBRARY, missing_plugins

FINDINGS = "mythos_runtime.findings"
"""Entry points that name functions without arguments which return a list of Finding."""

_INSTRUCTIONS = re.compile(r"sse4_2|avx2|fma|f16c|avx512(?:f|bw|dq|vl|_vnni|_bf16)|amx_\w+|asimd\w*|i8mm|sve2?")
"""What the kernels use, or could."""


@dataclass(frozen=True)
class Finding:
    """One ability: whether it works here (None: a fact that is neither), what was found, what to install otherwise."""

    what: str
    works: bool | None
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every ability, the most needed first, then the machine itself."""
    findings = [
        _backend("run ONNX on the CPU", "onnxruntime", f"onnxruntime {_version('onnxruntime', 'onnxruntime-gpu')}"),
        _native_operators(),
        _native_engine(),
        _cpp_runtime(),
        _library("read tokenizer.json", "tokenizers"),
        _library("apply chat templates", "jinja2"),
        _library("hold bfloat16 caches", "ml_dtypes"),
        _cuda(),
        _backend("run model.pt2", "eager", f"torch {_version('torch')}"),
        _backend("run TensorRT engines", "tensorrt", "TensorRT"),
        _built("launch a bundle's kernels in ONNX Runtime", CUDA_LIBRARY, missing_cuda_library()),
        _built("run TensorRT engines with plug-ins", PLUGIN_LIBRARY, missing_plugins()),
    ]
    for entry in metadata.entry_points(group=FINDINGS):
        more: Callable[[], list[Finding]] = entry.load()
        findings += more()
    return [*findings, _compilers(), *_machine()]


def _backend(what: str, name: str, found: str) -> Finding:
    lack = missing_for(name)
    return Finding(what, lack is None, found if lack is None else "", lack or "")


def _cuda() -> Finding:
    what, remedy = "run ONNX on a GPU", "replace onnxruntime by onnxruntime-gpu, on a machine with an NVIDIA GPU"
    if missing_for("onnxruntime") is not None:
        return Finding(what, False, "", remedy)
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return Finding(what, True, "CUDA provider")
    return Finding(what, False, "no CUDA provider", remedy)


def _native_operators() -> Finding:
    """The CPU library of the mythos operators: the one that a session would load."""
    what = "run operators natively"
    lack = why_no_op_library()
    if lack is not None:
        return Finding(what, False, "portable function bodies", lack)
    return Finding(what, True, str(find_op_library()))


def _native_engine() -> Finding:
    what = "run in the C++ runtime"
    lack = why_no_native_engine()
    if lack is not None:
        return Finding(what, False, "in Python", lack)
    return Finding(what, True, str(find_runtime_library()))


def _cpp_runtime() -> Finding:
    what = "run without Python"
    try:
        return Finding(what, True, str(cpp.program()))
    except BackendMissing as error:
        return Finding(what, False, "", str(error))


def _built(what: str, library: str, lack: str | None) -> Finding:
    """A library for GPUs, beside the CPU's operators."""
    return Finding(what, lack is None, str(NATIVE / library) if lack is None else "", lack or "")


def _library(what: str, package: str) -> Finding:
    if importlib.util.find_spec(package) is None:
        return Finding(what, False, "", f"pip install {package}")
    return Finding(what, True, f"{package} {_version(package)}")


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _compilers() -> Finding:
    """What the kernels and the C++ runtime are built with."""
    tools = [os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "c++"), "cmake"]
    found = {tool: _first_line(tool) for tool in tools if shutil.which(tool)}
    lacks = [tool for tool in tools if tool not in found]
    remedy = f"no {' and no '.join(lacks)}: apt-get install g++ cmake" if lacks else ""
    return Finding("build native code", not lacks, "; ".join(found.values()), remedy)


def _first_line(tool: str) -> str:
    result = subprocess.run([tool, "--version"], capture_output=True, text=True, errors="replace")
    return (result.stdout or result.stderr).strip().partition("\n")[0] or tool


def _machine() -> list[Finding]:
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    instructions = (
        " ".join(filter(_INSTRUCTIONS.fullmatch, flags[1].split() if flags else ())) or "instructions unknown"
    )
    processor = (
        f"{model[1] if model else platform.machine()}, {usable} of {os.cpu_count()} cores usable, {instructions}"
    )
    disk = shutil.disk_usage(Path.cwd())
    return [
        Finding("processor", None, processor),
        Finding("memory", None, _memory()),
        Finding("disk", None, f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB in {Path.cwd()}"),
    ]


def _memory() -> str:
    """Of the machine, and of the container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    available = re.search(r"^MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    parts = [f"{total / 1e9:.1f} GB"] if total else []
    parts += [f"{int(available[1]) / 1e6:.1f} GB available"] if available else []
    parts += [f"this container may use {int(limit) / 1e9:.1f} GB"] if limit.isdecimal() and int(limit) < total else []
    return ", ".join(parts) or "unknown"


def _read(path: str) -> str:
    """A file of the system's; empty where this system has none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
