"""The row graphs of a loaded model where the C++ runtime does not run them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mythos_runtime.engine.cores import open_core
from mythos_runtime.engine.interface import RowsCache
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.pooled import PooledEngine
from mythos_runtime.engine.row_cache import Pool, RowCache
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.manifest import Manifest
from mythos_runtime.session import Options
from mythos_runtime.torch_device import TorchDevice


class PythonRows:
    """See `interface.Rows`: in ONNX Runtime, or in PyTorch. They are opened when they are first needed."""

    def __init__(self, folder: Path, manifest: Manifest, options: Options, device: TorchDevice | None) -> None:
        """`device`: where PyTorch runs them; None: ONNX Runtime does, where `options` say."""
        self._folder, self._manifest, self._options, self._device = folder, manifest, options, device

    @cached_property
    def pool(self) -> Pool:
        return Pool(open_core(self._folder, self._manifest, self._options, self._device))

    def engine(self, options: EngineOptions) -> PooledEngine:
        return PooledEngine(self.pool, options)

    def new_cache(self, batch: int, capacity: int, max_loops: int | None, policy: Policy) -> RowCache:
        return RowCache(self.pool, batch, capacity, self._manifest.spec, max_loops, policy)

    def made(self, cache: RowsCache) -> bool:
        return isinstance(cache, RowCache) and cache.pool is self.__dict__.get("pool")
