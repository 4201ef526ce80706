"""A row graph in ONNX Runtime, with buffers that stay bound from call to call.

A call of a small model takes less than the binding of its tensors would. So every graph has buffers for the most rows
that it takes, and a frame for each number of rows that came: views of the same memory, bound once. The caches are
bound as input and output both, which appends in place; in a Loop they are inputs alone, and are written to.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence as Several
from typing import Any, Protocol

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, blocks_of, few_sizes, put_place
from mythos_runtime.engine.pages import PagedCache
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import TOKEN, States
from mythos_runtime.ort import OrtSession, call_error
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.row_ports import PAGE

MOST_FRAMES = 128  # of a graph, about 20 kB each
MOST_LOOPS_OF_CALL = 16
MOST_TABLES = 1 << 22  # numbers of pages in the tables of a call of several loops, where those of one are fewer: 32 MB


class Frame:
    """A graph's tensors at some sizes, by role and group, and their binding.

    Attributes:
        in_loop: whether the graph is told how many loops it may run, and says how many it ran.
        tables: int64 [loops, spans, blocks], where it reads pages.
        most_loops: that there are tables for.
    """

    def __init__(
        self,
        binding: Any,
        tensors: dict[tuple[str, str | None], np.ndarray],
        given: dict[str, tuple[Port, list[int]]],
        spans: int = 1,
    ) -> None:
        """
        Args:
            given: outputs that have a new tensor at each run, by role, with their shapes.
            spans: of a loop, that there are tables for.
        """
        self.binding, self.tensors, self._given = binding, tensors, given
        self.in_loop = ("loops", None) in tensors
        tables = tensors.get(("tables", None), np.zeros((spans, 1), np.int64))
        self.tables = tables.reshape(-1, spans, tables.shape[1])
        self.most_loops = len(self.tables)
        self.carried = [(str(group), tensor) for (role, group), tensor in tensors.items() if role == "state"]
        self.ahead = [(str(group), tensor) for (role, group), tensor in tensors.items() if role == "state_next"]

    def __getitem__(self, role: str) -> np.ndarray:
        """The one tensor of a role."""
        return self.tensors[role, None]

    def new(self, role: str) -> np.ndarray:
        """The tensor that the next run puts an output in, which is the caller's: no buffer of this graph."""
        port, shape = self._given[role]
        tensor = np.empty(shape, numpy_dtype(port.dtype))
        self.binding.bind_ortvalue_output(port.name, _ort().OrtValue.ortvalue_from_numpy(tensor))
        return tensor

    def put_tokens(self, states: States, lines: np.ndarray) -> None:
        """Set the rows' tokens, where the graph reads them."""
        if ("ids", None) in self.tensors:
            states.arrays[TOKEN].take(lines, 0, self["ids"], "clip")

    def get(self, role: str, otherwise: np.ndarray) -> np.ndarray:
        return self.tensors.get((role, None), otherwise)


class StepPart(Protocol):
    """What runs a row graph: it has frames to fill, and runs what stands in one."""

    most_loops: int
    """Of a call."""

    def bind(self, cache: PagedCache | None) -> None: ...

    def frame(self, spans: Several[Span], rows: int, wanted: int = 0) -> Frame: ...

    def run(self, frame: Frame, spans: Several[Span], tables: Tables) -> None: ...


class Part:
    """A row graph, its buffers and its frames.

    Attributes:
        most_loops: of a call; more than one of the step in a Loop.
    """

    def __init__(
        self,
        ports: Ports,
        session: OrtSession,
        most_rows: int,
        most_positions: int,
        slot: int = 0,
        memory: dict[str, np.ndarray] | None = None,
    ) -> None:
        """
        Args:
            slot: of the cache, which the part's first port is.
            memory: buffers by the name of a port that others have too; its own are added.
        """
        self._session, self._ports, self._slot = session, ports, slot
        self._most_rows, blocks = most_rows, 2 * -(-most_positions // PAGE)
        self.most_loops = MOST_LOOPS_OF_CALL if ports.has("loops") else 1
        tables = max(min(self.most_loops * most_rows, MOST_TABLES // blocks), most_rows)
        most = {"R": most_rows, "S": most_rows, "T": tables, "K": blocks, "W": most_rows, "L": self.most_loops}
        self._most_tables = tables * blocks
        self._memory = {} if memory is None else memory
        for port in (*ports.inputs, *ports.outputs):
            if not port.role.startswith("cache") and port.role != "logits" and port.name not in self._memory:
                self._memory[port.name] = np.zeros(int(np.prod(_shape(port, most))), numpy_dtype(port.dtype))
        self._caches: dict[str, Any] = {}
        self._paged = any(port.role == "cache" for port in ports.inputs)
        self._numbers = np.arange(most_rows)
        self._frames: dict[tuple[int, int, int, int], Frame] = {}

    def bind(self, cache: PagedCache | None) -> None:
        """Append to these pages: one buffer of them for each port of a cache, from `slot` on."""
        if self._paged:
            assert cache is not None
            names = [port.name for port in self._ports.inputs if port.role == "cache"]
            self._caches = {
                name: _ort().OrtValue.ortvalue_from_numpy(cache.memory[self._slot + index])
                for index, name in enumerate(names)
            }
        self._frames.clear()

    def frame(self, spans: Several[Span], rows: int, wanted: int = 0) -> Frame:
        """The tensors for so many rows of these spans."""
        blocks, count = (blocks_of(spans), min(few_sizes(len(spans)), self._most_rows)) if self._paged else (0, 1)
        key = (rows, count, blocks, wanted)
        frame = self._frames.pop(key, None)
        if frame is None:
            if len(self._frames) >= MOST_FRAMES:
                self._frames.pop(next(iter(self._frames)))  # the one that was used longest ago
            loops = min(self.most_loops, self._most_tables // (count * blocks)) if self._paged else 1
            sizes = {"R": rows, "S": count, "T": loops * count, "K": blocks, "W": wanted, "L": loops}
            frame = self._make(sizes)
        self._frames[key] = frame
        return frame

    def run(self, frame: Frame, spans: Several[Span], tables: Tables) -> None:
        """Run the graph on what stands in a frame, over rows of these spans.

        Raises:
            BackendFailed: ONNX Runtime could not finish the call.
        """
        if self._paged:
            put_place(spans, tables, frame["position"], frame["span"], frame.tables, self._numbers)
        try:
            self._session.inference.run_with_iobinding(frame.binding)
        except self._session.failures as error:
            raise call_error(error) from error

    def _make(self, sizes: dict[str, int]) -> Frame:
        binding = self._session.inference.io_binding()
        self._session.bind_linked(binding)
        tensors: dict[tuple[str, str | None], np.ndarray] = {}
        given: dict[str, tuple[Port, list[int]]] = {}
        for ports, bind in (
            (self._ports.inputs, binding.bind_ortvalue_input),
            (self._ports.outputs, binding.bind_ortvalue_output),
        ):
            for port in ports:
                if port.role == "logits":
                    given[port.role] = port, _shape(port, sizes)
                    continue
                value = self._caches.get(port.name.removesuffix("_next")) if port.role.startswith("cache") else None
                if value is None:
                    shape = _shape(port, sizes)
                    tensor = self._memory[port.name][: int(np.prod(shape))].reshape(shape)
                    tensors[port.role, port.group if port.role.startswith("state") else None] = tensor
                    value = _ort().OrtValue.ortvalue_from_numpy(tensor)
                bind(port.name, value)
        return Frame(binding, tensors, given, sizes["S"])


def _ort() -> Any:
    return importlib.import_module("onnxruntime")


def _shape(port: Port, sizes: dict[str, int]) -> list[int]:
    return [dim if isinstance(dim, int) else sizes[dim] for dim in port.dims]
