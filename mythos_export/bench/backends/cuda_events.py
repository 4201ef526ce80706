"""Times of a GPU by CUDA events. Written against cuda-python; not executed by this project so far."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from mythos_runtime.errors import BackendFailed


class CudaClock:
    """Seconds between two events around a call that ends only when its results are on the host.

    The calls copy their results back and so are synchronous. Both events are recorded on the default stream, which the
    call leaves empty: the first is passed at once, the second when the call has returned. So the time is that of the
    whole call on the GPU's clock: work on any stream, the copies of inputs and caches, and what Python does meanwhile.
    """

    def __init__(self) -> None:
        self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        self._start, self._end = (self._check(self._cuda.cudaEventCreate()) for _ in range(2))

    def seconds(self, call: Callable[[], object]) -> float:
        self._check(self._cuda.cudaEventRecord(self._start, 0))
        call()
        self._check(self._cuda.cudaEventRecord(self._end, 0))
        self._check(self._cuda.cudaEventSynchronize(self._end))
        milliseconds: float = self._check(self._cuda.cudaEventElapsedTime(self._start, self._end))
        return milliseconds / 1e3

    def _check(self, result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise BackendFailed(f"CUDA events failed: {error}")
        return values[0] if values else None


def missing_events() -> str | None:
    """What lacks for timing with CUDA events."""
    try:
        importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        return f"CUDA events need the package cuda-bindings (pip install cuda-bindings; {error})"
    return None
