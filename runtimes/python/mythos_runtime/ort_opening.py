"""A graph opened in ONNX Runtime: in which providers, with what threads and operators, and why it cannot be."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mythos_runtime.cuda_ops import KERNELS_ENTRY, KERNELS_FOLDER, find_cuda_library
from mythos_runtime.errors import BackendMissing, BundleError
from mythos_runtime.op_library import OP_LIBRARY_VARIABLE, find_op_library
from mythos_runtime.session import Options

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""By default it would multiply float32 in TF32, whose 10 bits of a fraction are not enough for equal depths."""
_SPIN_MICROSECONDS = "50"
"""That a thread looks for work within a call before it sleeps, as all do at the call's end. Between two operators of a
call that is enough. By itself ONNX Runtime has them look for 45 ms after a call, too: on cores that another session's
next call needs, and where somebody else uses a core, a thread that spins on has used up its turn when its work comes
(two threads: 50 is level with that, and beside a busy process up to 1.7 times as fast)."""
_ERROR_LEVEL = 3  # ONNX Runtime's own: its warnings about optimizations mean nothing to a user


def let_threads_sleep(settings: Any) -> None:
    """Say in SessionOptions how long a session's threads look for work."""
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)


def wanted_providers(ort: Any, wanted: str) -> list[str]:
    """Those of this ONNX Runtime that a graph may run in, the first one first. Raises BackendMissing."""
    available = ort.get_available_providers()
    if wanted == "cuda" and PROVIDERS["cuda"] not in available:
        raise BackendMissing(
            "CUDA was asked for, but this ONNX Runtime is built without it: pip uninstall onnxruntime, then "
            "pip install onnxruntime-gpu (the two must not be installed together)"
        )
    names = [PROVIDERS["cpu"]] if wanted == "cpu" else [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    return [name for name in names if name in available]


def open_inference(
    ort: Any, file: Path, options: Options, providers: list[str], entries: Mapping[str, str]
) -> tuple[Any, Path | None]:
    """An InferenceSession, with the operators that its first provider has a library of; and that library.

    Raises:
        BackendMissing: the library does not load, or there is no kernel for an operator.
        BundleError: the graph is damaged.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERROR_LEVEL
    settings.enable_cpu_mem_arena = False  # malloc is faster for the many small tensors of a decoded token
    settings.enable_mem_pattern = False  # it keeps one for every new set of shapes, without end, and saves no time
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    let_threads_sleep(settings)
    on_cpu = providers[0] == PROVIDERS["cpu"]
    chosen = options.op_library
    kernels = file.parent / KERNELS_FOLDER
    library = find_op_library(chosen) if on_cpu else find_cuda_library(kernels, chosen)
    if library is not None:
        if not on_cpu:
            settings.add_session_config_entry(KERNELS_ENTRY, str(kernels))
        _register(settings, library)
    try:
        chosen_options = [_PROVIDER_OPTIONS.get(name, {}) for name in providers]
        return ort.InferenceSession(str(file), settings, providers, chosen_options), library
    except error_types() as error:
        raise _load_error(file, error, library) from error


def _register(settings: Any, library: Path) -> None:
    try:
        settings.register_custom_ops_library(str(library))
    except error_types() as error:
        raise BackendMissing(
            f"the operator library {library} cannot be loaded by this ONNX Runtime: {first_line(error)}; rebuild "
            "it on this machine, or run without it (op_library=None)"
        ) from error


def error_types() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base class, and their module's location is not documented."""
    module = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError, ValueError)


def _load_error(file: Path, error: Exception, library: Path | None) -> BundleError | BackendMissing:
    text = first_line(error)
    if "not a registered function/op" in text or "TypeInferenceError" in text or "NOT_IMPLEMENTED" in text:
        have = (
            f"in {library}, nor has the file a body for it" if library else "in it, and no operator library is loaded"
        )
        return BackendMissing(
            f"{file} uses an operator that this ONNX Runtime cannot run ({text}); it is not {have}: build "
            f"the library of native operators and name it in {OP_LIBRARY_VARIABLE}, or export the model again"
        )
    return BundleError(f"{file} cannot be loaded by ONNX Runtime: {text}")


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
