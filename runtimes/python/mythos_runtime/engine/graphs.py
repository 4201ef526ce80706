"""The three row graphs in ONNX Runtime, with buffers that stay bound from call to call.

A call of a small model takes less than the binding of its tensors would. So every graph has buffers for the most rows
that it takes, and a frame for each number of rows that came: views of the same memory, bound once. The caches are
bound as input and output both, which appends in place; in a Loop they are inputs alone, and are written to.

What happens around a call takes as long as a loop of a small model does. So where the bundle has the step in a Loop,
rows that stay together run several loops in one call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Any, Protocol

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, blocks_of, few_sizes, put_knobs, put_place, put_stops
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import ENCODED, TOKEN, States
from mythos_runtime.errors import BackendFailed
from mythos_runtime.ort import OrtSession, call_error
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, LOOPS_FILE, PAGE, STEP
from mythos_runtime.spec import LoopSpec

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


class Graphs(Protocol):
    """What the engine runs, wherever that computes; `RowGraphs` says what each of these does."""

    spec: LoopSpec
    most_rows: int
    """Of a call."""
    most_loops: int
    """Of a call of the step."""

    def bind(self, memory: Memory) -> None: ...

    def enter(
        self,
        states: States,
        ids: np.ndarray,
        initial: np.ndarray | None,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray: ...

    def step(self, states: States, lines: np.ndarray, spans: Several[Span], tables: Tables) -> int: ...

    def leave(
        self,
        states: States,
        lines: np.ndarray,
        early: np.ndarray,
        pick: np.ndarray,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray: ...


class RowGraphs:
    """In ONNX Runtime on the CPU.

    Attributes:
        most_rows: of a call. most_loops: of a call of the step.
    """

    def __init__(
        self,
        spec: LoopSpec,
        open_graph: Callable[[str], OrtSession],
        memory: Memory,
        most_rows: int,
        most_positions: int,
        step: StepPart | None = None,
    ) -> None:
        """
        Args:
            open_graph: a graph by its name, with the ports of the spec.
            memory: whose pages the graphs append to.
            most_rows: of a call.
            most_positions: of a sequence.
            step: what runs the step where that is not the graph of its name, for as many rows and positions.
        """
        self.spec, self.most_rows = spec, most_rows
        around = next((group.before for group in spec.caches if not group.per_loop), 0)
        self._parts: dict[str, StepPart] = {
            name: step
            if step is not None and name == STEP
            else Part(spec.graphs[name], open_graph(name), most_rows, most_positions, around if name == LEAVE else 0)
            for name in GRAPHS
        }
        self.most_loops = self._parts[STEP].most_loops
        self._unused = np.zeros(self.most_loops * most_rows, np.float32)  # a knob that the model lacks
        self.bind(memory)

    def bind(self, memory: Memory) -> None:
        """Append to this memory's pages from now on."""
        for name, part in self._parts.items():
            part.bind(memory.loop if name == STEP else memory.around)

    def enter(
        self,
        states: States,
        ids: np.ndarray,
        initial: np.ndarray | None,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """Lines of state for the spans' new tokens int64 [r], with what stands before the loop.

        Args:
            initial: the state before the first loop [r, S], where the model draws it.

        Raises:
            OutOfStates: there are not as many lines.
        """
        part = self._parts[ENTER]
        frame = part.frame(spans, len(ids))
        frame["ids"][:] = ids
        part.run(frame, spans, [tables])
        return states.begin(ids, frame["encoded"], initial)

    def step(self, states: States, lines: np.ndarray, spans: Several[Span], tables: Tables) -> int:
        """One loop of the spans' rows, each at its span's depth, or several, for as many as there are `tables` at most;
        `lines` [r] are their states, which it replaces. The loops that ran: none follows one in which the last row of a
        span halts, unless that runs every depth (`Job.whole`).

        Raises:
            BackendFailed: as `Part.run`, or the graph says that it ran as many loops as it cannot have run.
        """
        part = self._parts[STEP]
        frame = part.frame(spans, len(lines))
        states.arrays[ENCODED].take(lines, 0, frame["encoded"], "clip")  # "clip": straight into the tensor
        frame.put_tokens(states, lines)
        for name, tensor in frame.carried:
            states.arrays[name].take(lines, 0, tensor, "clip")
        tables, last = tables[: frame.most_loops], frame["last"].reshape(-1, len(lines))
        threshold = frame.get("halt_threshold", self._unused[: last.size]).reshape(last.shape)
        put_knobs(states, lines, spans, frame["loop"], last, threshold, len(tables))
        if frame.in_loop:
            frame["loops"][...], frame["spans"][...] = len(tables), frame.tables.shape[1]
            if len(tables) > 1:
                put_stops(spans, frame["stops"])
        part.run(frame, spans, tables)
        ran = int(frame["ran"]) if frame.in_loop else 1
        if not 1 <= ran <= len(tables):
            raise BackendFailed(f"{LOOPS_FILE} says that it ran {ran} loops of {len(tables)}: export the model again")
        for name, tensor in frame.ahead:
            states.arrays[name][lines] = tensor
        return ran

    def leave(
        self,
        states: States,
        lines: np.ndarray,
        early: np.ndarray,
        pick: np.ndarray,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """Logits [w, V] of those of the spans' rows that `pick` [w] counts.

        `lines` [r] are their states, and `early` bool [r] says which leave before their last loop (`States.answers`).
        """
        part = self._parts[LEAVE]
        frame = part.frame(spans, len(lines), len(pick))
        frame["answer"][:] = states.answers(lines, early)
        frame.put_tokens(states, lines)
        frame["pick"][:] = pick
        logits = frame.new("logits")
        part.run(frame, spans, [tables])
        return logits


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
