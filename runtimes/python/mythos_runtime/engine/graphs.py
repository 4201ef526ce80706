"""The three row graphs in ONNX Runtime, with buffers that stay bound from call to call.

A call of a small model takes less than the binding of its tensors would. So every graph has buffers for the most rows
that it takes, and a binding for each number of rows that came: views of the same memory, made once. The caches are
bound as input and output both, which appends in place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Any

import numpy as np

from mythos_runtime.engine.pages import PagedCache
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import ENCODED, TOKEN, States
from mythos_runtime.ort import OrtSession, call_error
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.row_ports import ENTER, LEAVE, PAGE, STEP
from mythos_runtime.spec import LoopSpec

_MOST_BINDINGS = 512


class BoundGraph:
    """A graph and its buffers: flat memory by port, of which `view` gives a tensor."""

    def __init__(self, session: OrtSession, ports: Ports, caches: dict[str, Any], most: dict[str, int]) -> None:
        """
        Args:
            caches: OrtValue by the name of the input.
            most: the largest value of each symbol.
        """
        self._session, self._ports, self._caches, self._most = session, ports, caches, most
        self._memory = {
            port.name: np.zeros(int(np.prod(_shape(port, most))), numpy_dtype(port.dtype))
            for port in (*ports.inputs, *ports.outputs)
            if not port.role.startswith("cache")
        }
        self._bindings: dict[tuple[int, ...], Any] = {}
        self._symbols = sorted({d for port in ports.inputs for d in port.dims if isinstance(d, str) and d in most})

    def view(self, name: str, *shape: int) -> np.ndarray:
        """The beginning of a port's memory as a tensor."""
        size = 1
        for dim in shape:
            size *= dim
        return self._memory[name][:size].reshape(shape)

    def run(self, sizes: dict[str, int]) -> None:
        """Run it on what stands in the inputs' views of these sizes.

        Raises:
            BackendFailed: ONNX Runtime could not finish the call.
        """
        key = tuple(sizes[symbol] for symbol in self._symbols)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= _MOST_BINDINGS:
                self._bindings.pop(next(iter(self._bindings)))
            binding = self._bindings[key] = self._bind(sizes)
        try:
            self._session.inference.run_with_iobinding(binding)
        except self._session.failures as error:
            raise call_error(error) from error

    def _bind(self, sizes: dict[str, int]) -> Any:
        binding = self._session.inference.io_binding()
        for port in self._ports.inputs:
            value = self._caches.get(port.name)
            if value is None:
                value = _ort().OrtValue.ortvalue_from_numpy(self.view(port.name, *_shape(port, sizes)))
            binding.bind_ortvalue_input(port.name, value)
        for port in self._ports.outputs:
            value = self._caches.get(port.name.removesuffix("_next")) if port.role == "cache_next" else None
            if value is None:
                value = _ort().OrtValue.ortvalue_from_numpy(self.view(port.name, *_shape(port, sizes)))
            binding.bind_ortvalue_output(port.name, value)
        return binding


class RowGraphs:
    """What the engine runs.

    Attributes:
        most_rows: of a call.
    """

    def __init__(
        self,
        spec: LoopSpec,
        open_graph: Callable[[str], OrtSession],
        around: PagedCache | None,
        loop: PagedCache,
        most_rows: int,
        most_positions: int,
    ) -> None:
        """
        Args:
            open_graph: a graph by its name, with the ports of the spec.
            around, loop: the caches whose pages the graphs append to.
            most_rows: of a call.
            most_positions: of a sequence.
        """
        self.spec, self.most_rows = spec, most_rows
        self._parts = {
            name: _Part(spec, name, open_graph(name), around if name != STEP else loop, most_rows, most_positions)
            for name in (ENTER, STEP, LEAVE)
        }

    def enter(self, ids: np.ndarray, spans: Several[Span], tables: Several[list[int]]) -> np.ndarray:
        """What stands before the loop, [r, D], of the spans' new tokens int64 [r]; valid until the next call."""
        part = self._parts[ENTER]
        part.put("ids", ids)
        part.run(spans, tables, len(ids))
        return part.get("encoded", len(ids))

    def step(self, states: States, lines: np.ndarray, spans: Several[Span], tables: Several[list[int]]) -> None:
        """One loop of the spans' rows, each at its span's depth; `lines` [r] are their states, which it replaces."""
        part, rows = self._parts[STEP], len(lines)
        part.gather("encoded", states.arrays[ENCODED], lines)
        part.tokens(states, lines)
        for name in part.carried:
            part.gather("state", states.arrays[name], lines, name)
        loop, last = part.room("loop", rows), part.room("last", rows)
        threshold = part.room("halt_threshold", rows)
        at = 0
        for span in spans:
            end = at + span.rows
            loop[at:end] = span.depth
            last[at:end] = span.depth + 1 == span.sequence.limit
            threshold[at:end] = span.sequence.threshold
            at = end
        part.run(spans, tables, rows)
        for name in part.carried:
            states.arrays[name][lines] = part.get("state_next", rows, name)

    def leave(
        self,
        states: States,
        lines: np.ndarray,
        pick: np.ndarray,
        spans: Several[Span],
        tables: Several[list[int]],
    ) -> np.ndarray:
        """Logits [w, V] of those rows that `pick` [w] counts; `lines` [r] are the states of the spans' rows."""
        part = self._parts[LEAVE]
        part.gather("answer", states.arrays[part.answer], lines, part.answer)
        part.tokens(states, lines)
        part.put("pick", pick)
        part.run(spans, tables, len(lines), len(pick))
        return part.get("logits", len(pick)).copy()


class _Part:
    """A row graph, its tensors by role."""

    def __init__(
        self,
        spec: LoopSpec,
        name: str,
        session: OrtSession,
        cache: PagedCache | None,
        most_rows: int,
        most_positions: int,
    ) -> None:
        ports = spec.graphs[name]
        self._most_rows, blocks = most_rows, -(-most_positions // PAGE)
        caches: dict[str, Any] = {}
        if cache is not None:
            group = next(group for group in spec.caches if group.per_loop == (name == STEP))
            slot = group.before if name == LEAVE else 0
            for port in ports.inputs:
                if port.role == "cache":
                    caches[port.name] = _ort().OrtValue.ortvalue_from_numpy(cache.memory[slot])
                    slot += 1
        most = {"R": most_rows, "S": most_rows, "K": 2 * blocks, "W": most_rows}
        self._graph = BoundGraph(session, ports, caches, most)
        self._ports = {(port.role, port.group): port for port in (*ports.inputs, *ports.outputs)}
        self._unused = np.zeros(most_rows, np.float32)  # a knob that the model lacks
        self._positions = np.arange(most_positions)
        self._has_cache = bool(caches)
        self.carried = [str(port.group) for port in ports.inputs if port.role == "state"]
        self.answer = next((str(port.group) for port in ports.inputs if port.role == "answer"), "")

    def room(self, role: str, rows: int, group: str | None = None) -> np.ndarray:
        """A tensor's first rows."""
        port = self._ports.get((role, group))
        if port is None:
            return self._unused[:rows]
        return self._graph.view(port.name, rows, *(dim for dim in port.dims if isinstance(dim, int)))

    get = room

    def put(self, role: str, values: np.ndarray) -> None:
        """Set a tensor's first rows."""
        self.room(role, len(values))[:] = values

    def gather(self, role: str, values: np.ndarray, lines: np.ndarray, group: str | None = None) -> None:
        """Set a tensor's first rows to these lines of `values`."""
        np.take(values, lines, axis=0, out=self.room(role, len(lines), group), mode="clip")

    def tokens(self, states: States, lines: np.ndarray) -> None:
        """Set the rows' tokens, where the graph reads them."""
        if ("ids", None) in self._ports:
            self.gather("ids", states.arrays[TOKEN], lines)

    def run(self, spans: Several[Span], tables: Several[list[int]], rows: int, wanted: int = 0) -> None:
        """Run the graph on what was put, over rows of these spans."""
        sizes = {"R": rows, "W": wanted}
        if self._has_cache:
            most = max(span.last for span in spans) // PAGE + 1
            blocks = 1 << (most - 1).bit_length()  # of few sizes, for each is bound anew
            sizes |= {"S": self._most_rows, "K": blocks}
            position, number = self.room("position", rows), self.room("span", rows)
            table = self._graph.view("tables", self._most_rows, blocks)
            at = 0
            for index, (span, pages) in enumerate(zip(spans, tables, strict=True)):
                end = at + span.rows
                position[at:end] = self._positions[span.first : span.last + 1]
                number[at:end] = index
                needed = span.last // PAGE + 1
                table[index, :needed] = pages[:needed]
                at = end
        self._graph.run(sizes)


def _ort() -> Any:
    return importlib.import_module("onnxruntime")


def _shape(port: Port, sizes: dict[str, int]) -> list[int]:
    return [dim if isinstance(dim, int) else sizes[dim] for dim in port.dims]
