"""A bundle opened by the C++ runtime, for engines whose memory grows with what requests need."""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path

from mythos_runtime.engine.native.engine import EngineOptions, NativeEngine
from mythos_runtime.engine.native.library import check, load_options, open_library
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec


class NativeModel:
    """Engines on one memory, each for one thread at a time."""

    def __init__(self, folder: Path, spec: LoopSpec, options: Options) -> None:
        """`folder`: of a bundle whose files were checked already.

        Raises:
            BackendMissing: the C++ runtime is not installed, or finds no ONNX Runtime.
            BundleError: the bundle is damaged.
        """
        self._spec, self._library = spec, open_library()
        self._handle = ctypes.c_void_p()
        given = load_options(options, verify_hashes=False)
        given.backend = b"onnxruntime"
        check(
            self._library,
            self._library.mythos_load_with(os.fsencode(folder), ctypes.byref(given), ctypes.byref(self._handle)),
        )
        weakref.finalize(self, self._library.mythos_free, self._handle)

    def engine(self, options: EngineOptions) -> NativeEngine:
        """An engine on this memory, which it may outlive: of the options those of memory say nothing."""
        handle, given = ctypes.c_void_p(), options.struct(self._library, self._spec)
        check(
            self._library,
            self._library.mythos_engine_of(self._handle, ctypes.byref(given), ctypes.byref(handle)),
        )
        return NativeEngine(self._library, handle, self._spec, options)
