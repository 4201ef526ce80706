"""A bundle opened by the C++ runtime, for caches, and for engines whose memory grows with what requests need."""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path

from mythos_runtime.engine.native.cache import NativeCache
from mythos_runtime.engine.native.engine import EngineOptions, NativeEngine
from mythos_runtime.engine.native.library import check, load_options, open_library
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec


class NativeModel:
    """Engines and caches on one memory, each for one thread at a time.

    Attributes:
        spec: the model's.
        library, handle: the C interface, and a mythos_model of it.
    """

    def __init__(self, folder: Path, spec: LoopSpec, options: Options) -> None:
        """`folder`: of a bundle whose files were checked already.

        Raises:
            BackendMissing: the C++ runtime is not installed, or finds no ONNX Runtime.
            BundleError: the bundle is damaged.
        """
        self.spec, self.library = spec, open_library()
        self.handle = ctypes.c_void_p()
        given = load_options(options, verify_hashes=False)
        given.backend = b"onnxruntime"
        check(
            self.library,
            self.library.mythos_load_with(os.fsencode(folder), ctypes.byref(given), ctypes.byref(self.handle)),
        )
        weakref.finalize(self, self.library.mythos_free, self.handle)

    def engine(self, options: EngineOptions) -> NativeEngine:
        """An engine on this memory, which it may outlive: of the options those of memory say nothing."""
        handle, given = ctypes.c_void_p(), options.struct(self.library, self.spec)
        check(
            self.library,
            self.library.mythos_engine_of(self.handle, ctypes.byref(given), ctypes.byref(handle)),
        )
        return NativeEngine(self.library, handle, self.spec, options)

    def new_cache(self, batch: int, capacity: int, max_loops: int | None, policy: Policy) -> NativeCache:
        """See `mythos_runtime.model.Model.new_cache`."""
        return NativeCache(self, batch, capacity, max_loops, policy)
