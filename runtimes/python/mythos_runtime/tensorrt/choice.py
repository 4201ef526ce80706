"""Which engine of a bundle this machine runs, and what it lacks for it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from mythos_runtime.errors import BackendMissing, BundleError
from mythos_runtime.fields import Fields
from mythos_runtime.manifest import Manifest
from mythos_runtime.tensorrt.device import Device
from mythos_runtime.tensorrt.plugins import missing_plugins

_PACKAGES = {"tensorrt_rtx": "tensorrt-rtx-cu13", "tensorrt": "tensorrt"}


@dataclass(frozen=True)
class EngineFile:
    """An engine of the bundle: the library that runs it, and the compute capabilities it holds code for."""

    file: str
    library: str = "tensorrt_rtx"
    sm: tuple[int, ...] = ()  # empty: not known
    plugins: bool = False


def missing(library: str = "tensorrt_rtx") -> str | None:
    """What this machine lacks for this backend: all of it, in one sentence."""
    lacks = []
    if importlib.util.find_spec(library) is None:
        lacks.append(f"the package {_PACKAGES[library]} (pip install {_PACKAGES[library]})")
    if not _has_cuda_bindings():
        lacks.append("the package cuda-bindings (pip install cuda-bindings)")
    try:
        ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        lacks.append("an NVIDIA GPU with its driver (libcuda cannot be loaded)")
    return f"a TensorRT engine needs {', '.join(lacks)}" if lacks else None


def _has_cuda_bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except ImportError:  # the parent package is absent
        return False


def engines(manifest: Manifest) -> tuple[EngineFile, ...]:
    """The engines that the manifest's targets list. Raises BundleError where their details are malformed."""
    found = []
    for target in manifest.targets:
        listed = [path for path in target.files if path.endswith(".engine")]
        if "engines" not in target.details:
            found += [EngineFile(path) for path in listed]
            continue
        details = Fields({"engines": target.details["engines"]}, "manifest.json", f"targets[{target.name}].details")
        for item in details.items("engines"):
            file, library = item.text("file"), item.choice("library", tuple(_PACKAGES))
            if file not in listed:
                raise item.fail("file", "an engine among the target's files", file)
            sm = item.listed("sm")
            if not all(isinstance(number, int) for number in sm):
                raise item.fail("sm", "a list of compute capabilities, such as [80, 86]", sm)
            plugins = item.take("plugins", False)
            if not isinstance(plugins, bool):
                raise item.fail("plugins", "true or false", plugins)
            found.append(EngineFile(file, library, tuple(sm), plugins))
    return tuple(found)


def choose_engine(found: tuple[EngineFile, ...], capability: int) -> EngineFile:
    """The engine that holds code for a GPU of this compute capability (86 for 8.6); BackendMissing where none does."""
    for engine in found:
        if capability in engine.sm or not engine.sm:
            return engine
    built = "; ".join(f"{engine.file} for {', '.join(map(str, engine.sm))}" for engine in found)
    raise BackendMissing(
        f"this GPU has compute capability {capability}, the bundle has engines for others ({built}); "
        f"export again with --sm {capability}"
    )


def missing_to_run(manifest: Manifest) -> str | None:
    """What this machine lacks for this bundle's engines: their library, a driver, a GPU that one was built for, the
    plug-ins that it calls.

    Raises:
        BundleError: the manifest's details of its engines are malformed, or there are none.
    """
    try:
        engine, _ = engine_for_this_gpu(manifest)
    except BackendMissing as error:
        return str(error)
    lack = missing_plugins() if engine.plugins else None
    return None if lack is None else f"{engine.file} calls plug-ins, and {lack}"


def engine_for_this_gpu(manifest: Manifest) -> tuple[EngineFile, Any]:
    """The engine to load, and cuda.bindings.runtime; errors as `open_session`."""
    found = engines(manifest)
    if not found:
        raise BundleError("this bundle has no TensorRT engine; export the model again with --target tensorrt")
    lack = missing(found[0].library)
    if lack:
        raise BackendMissing(f"{lack}; the same bundle runs here with backend='onnxruntime'")
    cuda = importlib.import_module("cuda.bindings.runtime")
    engine = choose_engine(found, Device(cuda).capability())
    lack = missing(engine.library)
    if lack:
        raise BackendMissing(lack)
    return engine, cuda
