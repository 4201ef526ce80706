"""CUDA graphs of a loop's iterations, through `cuda.bindings`. Built, not executed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CONDITION = Path(__file__).with_name("condition.fatbin")
_ENTRY = b"set_condition"
_ASSIGN_DEFAULT = 1  # CU_GRAPH_COND_ASSIGN_DEFAULT: the handle has its default value at every launch
_SUCCESS = 0


@dataclass(frozen=True)
class Executable:
    """What can be launched, and the graph that it was made of."""

    handle: Any
    graph: Any


class Graphs(Protocol):
    """What captures work and launches it. Tests stand in for it on a CPU."""

    def private(self) -> contextlib.AbstractContextManager[None]:
        """Work that is warmed up and captured inside has memory that nobody else is given afterwards."""
        ...

    def capture(self, work: Callable[[], None]) -> Any:
        """A graph of what `work` puts on the device."""
        ...

    def capture_while(self, flag: Any, work: Callable[[], None]) -> Any:
        """A graph that repeats `work` as long as the tensor `flag`, bool [], is true; it is read before each time."""
        ...

    def launch(self, executable: Any) -> None:
        """Put a graph onto the current stream."""
        ...

    def free(self, executable: Any) -> None:
        """A graph will not be launched again."""
        ...


class CudaGraphs:
    """The graphs of one device."""

    def __init__(self, torch: Any, cu: Any) -> None:
        """`torch` is the module, `cu` is cuda.bindings.driver. Raises RuntimeError where the driver refuses."""
        self._torch, self._cu = torch, cu
        torch.cuda.init()
        torch.zeros(1, device="cuda")  # which makes the context current
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.MemPool()
        module = self._call("cuModuleLoadData", CONDITION.read_bytes())
        self._condition = self._call("cuModuleGetFunction", module, _ENTRY)

    @contextlib.contextmanager
    def private(self) -> Iterator[None]:
        torch, stream = self._torch, self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.cuda.use_mem_pool(self._pool):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, work: Callable[[], None]) -> Executable:
        graph = self._call("cuGraphCreate", 0)
        self._record(graph, work)
        return self._ready(graph)

    def capture_while(self, flag: Any, work: Callable[[], None]) -> Executable:
        cu = self._cu
        graph, context = self._call("cuGraphCreate", 0), self._call("cuCtxGetCurrent")
        handle = self._call("cuGraphConditionalHandleCreate", graph, context, 0, _ASSIGN_DEFAULT)
        arguments = ((int(handle), flag.data_ptr()), (ctypes.c_uint64, ctypes.c_void_p))
        node = cu.CUDA_KERNEL_NODE_PARAMS()  # before the first iteration: there may be none
        node.func = self._condition
        node.gridDimX = node.gridDimY = node.gridDimZ = node.blockDimX = node.blockDimY = node.blockDimZ = 1
        node.kernelParams = arguments
        first = self._call("cuGraphAddKernelNode", graph, None, 0, node)
        body = self._add_while(graph, first, handle, context)

        def work_and_condition() -> None:
            work()
            self._call("cuLaunchKernel", self._condition, 1, 1, 1, 1, 1, 1, 0, self._stream.cuda_stream, arguments, 0)

        self._record(body, work_and_condition)
        return self._ready(graph)

    def launch(self, executable: Executable) -> None:
        self._call("cuGraphLaunch", executable.handle, self._torch.cuda.current_stream().cuda_stream)

    def free(self, executable: Executable) -> None:
        self._call("cuGraphExecDestroy", executable.handle)
        self._call("cuGraphDestroy", executable.graph)

    def _add_while(self, graph: Any, after: Any, handle: Any, context: Any) -> Any:
        """The WHILE node behind another one; returns the graph that it repeats."""
        cu = self._cu
        node = cu.CUgraphNodeParams()
        node.type = cu.CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL
        node.conditional.handle = handle
        node.conditional.type = cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_WHILE
        node.conditional.size = 1
        if hasattr(node.conditional, "ctx"):
            node.conditional.ctx = context
        try:
            self._call("cuGraphAddNode", graph, [after], None, 1, node)
        except TypeError:  # bindings of CUDA 12, whose edges carry no data
            self._call("cuGraphAddNode", graph, [after], 1, node)
        return node.conditional.phGraph_out[0]

    def _record(self, graph: Any, work: Callable[[], None]) -> None:
        """Capture what `work` puts on this object's stream into a graph.

        Relaxed: PyTorch's allocator, which does not know of this capture, may ask the driver for memory meanwhile.
        """
        stream, relaxed = self._stream.cuda_stream, self._cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._call("cuStreamBeginCaptureToGraph", stream, graph, None, None, 0, relaxed)
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", stream)

    def _ready(self, graph: Any) -> Executable:
        return Executable(self._call("cuGraphInstantiate", graph, 0), graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cu, name)(*arguments)
        if int(error) != _SUCCESS:
            raise RuntimeError(f"{name} failed: {error}")
        return values[0] if len(values) == 1 else None
