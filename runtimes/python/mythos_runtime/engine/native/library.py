"""libmythos_runtime.so: where it is, its functions, and its errors as this package's."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

import mythos_runtime
from mythos_runtime import errors
from mythos_runtime.engine.native import structs
from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.op_library import find_op_library
from mythos_runtime.session import NATIVE, Options

LIBRARY_VARIABLE = "MYTHOS_RUNTIME_LIBRARY"
_MOST_THREADS = (1 << 31) - 1
_HASHES, _SIZES = 0, 1  # MYTHOS_VERIFY_HASHES, MYTHOS_VERIFY_SIZES
_HOW = "install mythos-runtime anew where g++ is, or run make native in its source"
_FUNCTIONS = {
    "mythos_load_with": (c_int, (c_char_p, POINTER(structs.LoadOptions), POINTER(c_void_p))),
    "mythos_description": (c_char_p, (c_void_p,)),
    "mythos_operators": (c_char_p, (c_void_p,)),
    "mythos_free": (None, (c_void_p,)),
    "mythos_cache_new": (c_int, (c_void_p, c_int64, c_int64, c_int64, c_char_p, POINTER(c_void_p))),
    "mythos_cache_fork": (c_int, (c_void_p, c_void_p, c_size_t, POINTER(c_void_p))),
    "mythos_cache_truncate": (c_int, (c_void_p, c_void_p)),
    "mythos_cache_bytes": (c_int, (c_void_p, POINTER(c_size_t))),
    "mythos_cache_read": (c_int, (c_void_p, c_int64, c_int64, c_void_p, c_size_t, POINTER(c_size_t))),
    "mythos_cache_write": (c_int, (c_void_p, c_int64, c_int64, c_void_p, c_size_t, c_void_p, c_size_t)),
    "mythos_cache_free": (None, (c_void_p,)),
    "mythos_forward": (
        c_int,
        (
            *(c_void_p, c_void_p, c_void_p, c_int64, c_int64, POINTER(structs.ForwardOptions)),
            *(c_void_p, c_void_p, c_void_p, POINTER(c_int64)),
        ),
    ),
    "mythos_engine_open": (
        c_int,
        (c_char_p, POINTER(structs.LoadOptions), POINTER(structs.EngineOptions), POINTER(c_void_p)),
    ),
    "mythos_engine_of": (c_int, (c_void_p, POINTER(structs.EngineOptions), POINTER(c_void_p))),
    "mythos_engine_free": (None, (c_void_p,)),
    "mythos_engine_submit": (c_int, (c_void_p, POINTER(structs.Request), POINTER(c_uint64))),
    "mythos_engine_cancel": (c_int, (c_void_p, c_uint64)),
    "mythos_engine_tick": (c_int, (c_void_p, POINTER(POINTER(structs.Tick)))),
    "mythos_tick_free": (None, (POINTER(structs.Tick),)),
    "mythos_engine_usage": (c_int, (c_void_p, POINTER(structs.Usage))),
    "mythos_engine_pages_running": (c_int, (c_void_p, POINTER(c_int64))),
    "mythos_default_engine_options": (structs.EngineOptions, ()),
    "mythos_version": (c_char_p, ()),
    "mythos_onnxruntime_version": (c_int, (POINTER(c_char_p),)),
    "mythos_last_error": (c_char_p, ()),
    "mythos_last_error_kind": (c_char_p, ()),
}


def find_runtime_library() -> Path | None:
    """The C++ runtime: what the variable MYTHOS_RUNTIME_LIBRARY names (a path, or "none"), or what was built with this
    package; None where there is none.

    Raises:
        BackendMissing: a library was named, and is not there.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if named == "none":
        return None
    path = Path(named).absolute() if named else NATIVE / "lib" / "libmythos_runtime.so"
    if named and not path.is_file():
        raise BackendMissing(f"{LIBRARY_VARIABLE} names {path}, which does not exist; build it, or unset it")
    return path if path.is_file() else None


def why_no_native_engine() -> str | None:
    """Why Python runs bundles here, in words; None where the C++ runtime does."""
    try:
        library = open_library()
        check(library, library.mythos_onnxruntime_version(byref(c_char_p())))
    except BackendMissing as error:
        return str(error)
    return None


def open_library() -> ctypes.CDLL:
    """Its functions. Raises BackendMissing where it is not there, cannot be opened, or is of another version."""
    path = find_runtime_library()
    if path is None:
        if os.environ.get(LIBRARY_VARIABLE) == "none":
            raise BackendMissing(f"{LIBRARY_VARIABLE} is none, so that Python runs what the C++ runtime would")
        raise BackendMissing(f"the C++ runtime, libmythos_runtime.so, is not installed: {_HOW}")
    return _open(path)


@functools.cache
def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BackendMissing(f"the C++ runtime {path} cannot be used: {error}; {_HOW}") from error
    version = library.mythos_version().decode()
    if version != mythos_runtime.__version__:
        raise BackendMissing(
            f"the C++ runtime {path} is of version {version}, this package of {mythos_runtime.__version__}: {_HOW}"
        )
    return library


def free_with(owner: object, free: Callable[[c_void_p], None], handle: c_void_p) -> weakref.finalize[..., object]:
    """Free a handle when its owner is gone; at the end of the process not, where a thread may still be at it."""
    finalizer = weakref.finalize(owner, free, handle)
    finalizer.atexit = False
    return finalizer


def check(library: ctypes.CDLL, code: int) -> None:
    """Raise what a function has said, as the error of this package that it is."""
    if code:
        text = library.mythos_last_error().decode(errors="replace")
        kind = library.mythos_last_error_kind().decode()
        raise getattr(errors, kind, BackendFailed)(text)


def load_options(options: Options) -> structs.LoadOptions:
    """How the C++ runtime is to load a bundle whose files were checked already, on the CPU. Raises as
    `find_op_library`."""
    operators = find_op_library(options.op_library)
    return structs.LoadOptions(
        None,
        min(options.threads or 0, _MOST_THREADS),
        _SIZES,
        _HASHES if options.hash_weights else _SIZES,
        b"cpu",
        b"none" if operators is None else os.fsencode(operators),
        None if options.weights is None else os.fsencode(options.weights),
    )
