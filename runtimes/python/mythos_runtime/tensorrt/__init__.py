"""The tensorrt backend: a serialized engine on an NVIDIA GPU. **Not executed on a GPU yet**: written against the Python
API of TensorRT 10 and TensorRT-RTX 1.7 (the same but for the module's name).

The manifest's targets say which engines there are. Optional, per target: `details["engines"]`, a list of
`{file, sm: [80, 86, ...], library: "tensorrt_rtx" or "tensorrt", plugins: whether it calls plug-ins}`; without it every
file in `.engine` is taken to be TensorRT-RTX's, to fit the GPU and to call none. The optimization profile (prefill or
decode) is chosen per call, by its shapes.

An engine is native code: load only what you built. Past buffers are on the device and are bound where they are; only
tokens go there and logits come back.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from mythos_runtime.manifest import Manifest
from mythos_runtime.session import Options
from mythos_runtime.tensorrt.choice import (
    EngineFile,
    choose_engine,
    engine_for_this_gpu,
    engines,
    missing,
    missing_to_run,
)
from mythos_runtime.tensorrt.plugins import find_plugin_library, missing_plugins, register_plugins
from mythos_runtime.tensorrt.session import TensorRTSession

__all__ = [
    "EngineFile",
    "TensorRTSession",
    "choose_engine",
    "engines",
    "find_plugin_library",
    "missing",
    "missing_plugins",
    "missing_to_run",
    "open_session",
    "register_plugins",
]


def open_session(folder: Path, manifest: Manifest, options: Options) -> TensorRTSession:
    """Open the engine that fits this machine's GPU; `options` has nothing that applies here.

    Raises:
        BundleError: there is no engine in the bundle.
        BackendMissing: this machine lacks the library, the GPU or its driver.
    """
    del options
    engine, cuda = engine_for_this_gpu(manifest)
    trt = importlib.import_module(engine.library)
    if engine.plugins:
        register_plugins(trt, engine.file)
    return TensorRTSession((folder / engine.file).read_bytes(), manifest.spec.ports, trt, cuda, engine.file)
