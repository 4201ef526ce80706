"""A bundle opened by the C++ runtime, for caches, and for engines whose memory grows with what requests need."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

from mythos_runtime.batch import Chunk as Tokens
from mythos_runtime.engine.interface import RowsCache
from mythos_runtime.engine.native import structs
from mythos_runtime.engine.native.cache import NativeCache
from mythos_runtime.engine.native.engine import NativeEngine, options_struct
from mythos_runtime.engine.native.library import check, free_with, load_options, open_library
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec

_OF_THE_CACHE = -1


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
        given = load_options(options)
        given.backend = b"onnxruntime"
        check(
            self.library,
            self.library.mythos_load_with(os.fsencode(folder), ctypes.byref(given), ctypes.byref(self.handle)),
        )
        free_with(self, self.library.mythos_free, self.handle)

    @property
    def description(self) -> str:
        """Of the library that runs it, for people."""
        words: bytes = self.library.mythos_description(self.handle)
        return words.decode()

    @property
    def operators(self) -> str:
        """native or portable."""
        words: bytes = self.library.mythos_operators(self.handle)
        return words.decode()

    def forward(
        self,
        tokens: Tokens,
        threshold: float,
        state_seed: int,
        initial: np.ndarray | None,
        loops: int = _OF_THE_CACHE,
        cache: ctypes.c_void_p | None = None,
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Run a batch of tokens, behind what a cache holds (a mythos_cache), or as whole sequences.

        Args:
            threshold: where they halt; NaN: as trained.
            initial: float32 [B, T, S], their states before the first loop, of models that draw them; None: drawn.
            loops: the most of whole sequences.

        Returns: logits float32 [B, T, V] and depth int32 [B, T]; the loops that ran for them.

        Raises:
            CapacityError, ResultError, BackendFailed: nothing was written to the cache.
        """
        ids, valid = np.ascontiguousarray(tokens.ids, np.int64), np.ascontiguousarray(tokens.valid, np.uint8)
        logits = np.empty((*ids.shape, self.spec.vocab_size), np.float32)
        depth, ran = np.empty(ids.shape, np.int32), ctypes.c_int64()
        drawn = None if initial is None else np.ascontiguousarray(initial, np.float32)
        given = structs.ForwardOptions(loops, threshold, state_seed, None if drawn is None else drawn.ctypes.data)
        places = (array.ctypes.data for array in (ids, valid, logits, depth))
        code = self.library.mythos_forward(
            *(self.handle, next(places), next(places), *ids.shape, ctypes.byref(given), cache),
            *(next(places), next(places), ctypes.byref(ran)),
        )
        check(self.library, code)
        return logits, depth, ran.value

    def engine(self, options: EngineOptions) -> NativeEngine:
        """An engine on this memory, which it may outlive."""
        handle, given = ctypes.c_void_p(), options_struct(options, self.library, self.spec)
        check(
            self.library,
            self.library.mythos_engine_of(self.handle, ctypes.byref(given), ctypes.byref(handle)),
        )
        return NativeEngine(self.library, handle, self.spec, options)

    def new_cache(self, batch: int, capacity: int, max_loops: int | None, policy: Policy) -> NativeCache:
        """See `mythos_runtime.model.Model.new_cache`."""
        return NativeCache(self, batch, capacity, max_loops, policy)

    def made(self, cache: RowsCache) -> bool:
        """Whether a cache is in this memory."""
        return isinstance(cache, NativeCache) and cache.owner is self
