"""The plug-ins that an engine built with --plugins calls: a C++ library, which TensorRT loads."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from mythos_runtime.errors import BackendMissing
from mythos_runtime.session import NATIVE

PLUGIN_LIBRARY = "libmythos_tensorrt_plugins.so"
NAMESPACE = "mythos"
_loading = threading.Lock()


def find_plugin_library() -> Path | None:
    """The library beside the CPU's operators, or None where it is not built."""
    path = NATIVE / PLUGIN_LIBRARY
    return path if path.is_file() else None


def missing_plugins() -> str | None:
    """Why there are no plug-ins here, or None."""
    if find_plugin_library() is not None:
        return None
    return f"{NATIVE / PLUGIN_LIBRARY} is not there: it is built on Linux, by make native in the source"


def register_plugins(trt: Any, label: str) -> None:
    """Have a TensorRT (the module tensorrt or tensorrt_rtx) load the plug-ins that `label` calls, once a process.

    Raises:
        BackendMissing: they are not there, or this TensorRT does not take them.
    """
    with _loading:  # a TensorRT takes a library once, and sessions may open in several threads
        registry = trt.get_plugin_registry()
        if any(getattr(creator, "plugin_namespace", "") == NAMESPACE for creator in registry.all_creators):
            refusal()  # from now on this thread asks for reasons
            return
        path = find_plugin_library()
        if path is None:
            raise BackendMissing(
                f"{label} calls plug-ins, and {missing_plugins()}; or export the model again without --plugins"
            )
        refusal()
        if registry.load_library(str(path)) is None:
            raise BackendMissing(
                f"{label} calls plug-ins, and {trt.__name__} {trt.__version__} does not take {path}; its log says why"
            )


def refusal() -> str:
    """What a plug-in refused in this thread since it asked last, as the end of a sentence: ": " and the reason, or
    nothing."""
    path = find_plugin_library()
    if path is None:
        return ""
    words = ctypes.create_string_buffer(2000)
    ask = ctypes.CDLL(str(path)).mythos_plugin_error  # the one that TensorRT has loaded
    ask.argtypes, ask.restype = (ctypes.c_char_p, ctypes.c_size_t), ctypes.c_size_t
    return f": {words.value.decode(errors='replace')}" if ask(words, len(words)) else ""
