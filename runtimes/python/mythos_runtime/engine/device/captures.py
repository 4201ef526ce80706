"""Work on a device as something that can be launched again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

_WARM = 2  # runs before a capture, which load kernels and take memory


class Captures(Protocol):
    """Makes launches of work. Tests stand in for it."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """What repeats `work` on the same tensors. Meanwhile the work may be run, a few times."""
        ...


class Direct:
    """The work itself, operator by operator."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


class CudaCaptures:
    """CUDA graphs, which share the memory that they work in, as they run one after the other. Built, not executed."""

    def __init__(self, torch: Any) -> None:
        """`torch` is the module."""
        self._torch = torch
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        torch, stream = self._torch, self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads of a server may ask the driver for what a capture does not allow.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay
