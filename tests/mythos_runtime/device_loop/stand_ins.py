"""Stand-ins for a GPU: graphs that are calls, and a driver that notes what it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch


class HostGraphs:
    """What is captured is kept as a call, and launching calls it: the semantics of a graph, on a CPU."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.freed = 0
        self.inside = False

    @contextlib.contextmanager
    def private(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def capture(self, work: Callable[[], None]) -> Any:
        assert self.inside
        return "graph", work

    def capture_while(self, flag: torch.Tensor, work: Callable[[], None]) -> Any:
        assert self.inside

        def every() -> None:
            while bool(flag):
                work()

        return "while", every

    def launch(self, executable: Any) -> None:
        kind, work = executable
        self.launched.append(kind)
        work()

    def free(self, executable: Any) -> None:
        self.freed += 1


class NotingDriver:
    """cuda.bindings.driver with its own structures and enumerations, whose calls are noted and always succeed."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.fails: str | None = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu") or not callable(getattr(self._module, name)):
            return getattr(self._module, name)

        def call(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            results = self._module.CUresult
            if name == self.fails:
                return (results.CUDA_ERROR_NOT_SUPPORTED,)
            made = {
                "cuGraphConditionalHandleCreate": self._module.CUgraphConditionalHandle(77),
                "cuGraphAddKernelNode": self._module.CUgraphNode(),
                "cuModuleGetFunction": self._module.CUfunction(5),
                "cuGraphCreate": self._module.CUgraph(),
                "cuCtxGetCurrent": self._module.CUcontext(),
            }
            return results.CUDA_SUCCESS, made.get(name, name)

        return call

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> tuple[Any, ...]:
        (found,) = [arguments for called, arguments in self.calls if called == name]
        return found


class FakeTorch:
    """The part of torch.cuda that graphs need."""

    def __init__(self) -> None:
        null = contextlib.nullcontext
        self.waited: list[str] = []
        own = SimpleNamespace(cuda_stream=11, wait_stream=lambda other: self.waited.append("own"))
        current = SimpleNamespace(cuda_stream=22, wait_stream=lambda other: self.waited.append("current"))
        self.cuda = SimpleNamespace(
            init=lambda: None,
            Stream=lambda: own,
            MemPool=lambda: "pool",
            current_stream=lambda: current,
            stream=lambda stream: null(),
            use_mem_pool=lambda pool: null(),
        )

    def zeros(self, size: int, device: str) -> None:
        assert device == "cuda"
