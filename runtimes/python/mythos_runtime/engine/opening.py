"""An engine over a bundle's row graphs, in the C++ runtime or in this package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mythos_runtime.cuda_ops import wants_cuda_ops
from mythos_runtime.engine.bundled import has_rows, runs_on_cuda
from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.native import NativeEngine, NativeModel, find_runtime_library
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.errors import BackendMissing, RequestError
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.session import Options

if TYPE_CHECKING:
    from mythos_runtime.shards.group import Shards

N = TypeVar("N")


def open_engine(
    bundle: str | Path,
    engine: EngineOptions | None = None,
    *,
    options: Options | None = None,
    shards: Shards | None = None,
    backend: str | None = None,
    verify_hashes: bool = True,
) -> AnyEngine:
    """An engine over a bundle's row graphs.

    Args:
        engine: how it serves.
        options: threads, the library of native operators (exactness to the bit needs the native ones), and who runs
            the row graphs. The provider is the eager backend's device; ONNX Runtime runs row graphs on the CPU, or on
            CUDA where it is asked to with a bundle's kernels (`runs_on_cuda`).
        shards: of a bundle whose experts are in shards; None: processes of this machine are started for them.
        backend: onnxruntime (default) or eager, which needs the graphs as a program (`--target cuda`).
        verify_hashes: whether the content of the bundle's files is held against the manifest, or their sizes alone.

    Raises:
        BundleError: the bundle has no row graphs, or they are damaged.
        BackendMissing, RequestError, CapacityError: see `OrtSession`, `torch_device` and `Memory.of`.
    """
    folder, given, chosen = Path(bundle), engine or EngineOptions(), options or Options()
    manifest, on_device = read_manifest(folder, verify_hashes=verify_hashes), _on_device(backend)
    if _may_be_native(manifest, chosen, on_device):
        native = _native(lambda: NativeEngine.open(folder, manifest.spec, chosen, given), chosen)
        if native is not None:
            return native
    elif chosen.engine == "native":
        raise only_python(f"{folder} as it is asked for here")
    # What runs them takes as long to import as numpy, and 6 MB: not where the C++ runtime does.
    from mythos_runtime.engine.cores import python_engine

    return python_engine(folder, manifest, given, chosen, shards, on_device)


def open_native(folder: Path, manifest: Manifest, options: Options) -> NativeModel | None:
    """A bundle whose files were checked already, in the C++ runtime; None where Python runs it, since it is not to run
    on the CPU, for one. Raises as `open_engine`."""
    if options.provider != "cpu" and (options.provider == "cuda" or wants_cuda_ops() or _knows_cuda()):
        return None
    if options.engine == "python" or manifest.shards is not None or not has_rows(manifest):
        return None
    return _native(lambda: NativeModel(folder, manifest.spec, options), options)


def _may_be_native(manifest: Manifest, options: Options, on_device: bool) -> bool:
    """Whether the C++ runtime's engine may run a bundle's row graphs: on the CPU, with the experts in one place."""
    if options.engine == "python" or not has_rows(manifest):
        return False
    return not on_device and manifest.shards is None and not runs_on_cuda(manifest, options)


def only_python(what: str) -> BackendMissing:
    """Where the native engine was asked for."""
    return BackendMissing(
        "the native engine runs bundles with row graphs in ONNX Runtime on the CPU, with all experts in one place, and "
        f"not {what}: take engine auto, or provider cpu"
    )


def _native(open_it: Callable[[], N], options: Options) -> N | None:
    """What the C++ runtime opens; None where it is not here, and nobody insists: Python serves."""
    if options.engine == "auto" and find_runtime_library() is None:
        return None
    try:
        return open_it()
    except BackendMissing:
        if options.engine == "native":
            raise
        return None  # `mythos doctor` says why


def _knows_cuda() -> bool:
    """Whether the ONNX Runtime that is installed is one for GPUs, told without loading it."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return True  # whoever opens it says that it is not there
    return (Path(found.origin).parent / "capi" / "libonnxruntime_providers_cuda.so").is_file()


def _on_device(backend: str | None) -> bool:
    if backend not in (None, "onnxruntime", "eager"):
        raise RequestError(f"the engine runs on the backends onnxruntime and eager, found {backend!r}")
    return backend == "eager"
