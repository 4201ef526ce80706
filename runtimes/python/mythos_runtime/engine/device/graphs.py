"""The row graphs on a device. Calls are padded to few sizes, and each size is captured once.

A call's numbers (which rows, where they stand, at which depth) cross in one piece; states are read and written by line
inside of what is captured. A padding row stands nowhere (span -1), and reads and writes the spare line of the states.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from typing import Any

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, blocks_of, put_knobs, put_place
from mythos_runtime.engine.device.captures import Captures
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import DEPTH, ENCODED, HALTED, TOKEN
from mythos_runtime.errors import BackendFailed
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, STEP
from mythos_runtime.spec import LoopSpec

MOST_FRAMES = 64  # of a graph; each may hold a captured one
_FAILURES = (RuntimeError, ValueError, AssertionError, MemoryError)


class DeviceGraphs:
    """See `engine.graphs.Graphs`.

    Attributes:
        most_rows: of a call. most_loops: of a call of the step.
        launches: calls so far; uploads, downloads: copies to the device and back that they took.
    """

    most_loops = 1

    def __init__(
        self,
        spec: LoopSpec,
        programs: Mapping[str, Callable[..., Any]],
        place: TorchPlace,
        captures: Captures,
        memory: Memory,
        most_rows: int,
    ) -> None:
        """
        Args:
            programs: of `programs.cut`, on the place's device.
            memory: whose pages and states (`DeviceStates`) the calls read and write.
            most_rows: of a call.
        """
        self.spec, self.most_rows = spec, most_rows
        self.launches = self.uploads = self.downloads = 0
        self._programs, self._place, self._captures = programs, place, captures
        self._around = next((group.before for group in spec.caches if not group.per_loop), 0)
        self._numbers = np.arange(most_rows)
        self._frames: dict[str, OrderedDict[tuple[int, int, int], _Frame]] = {name: OrderedDict() for name in GRAPHS}
        self.bind(memory)

    def bind(self, memory: Memory) -> None:
        """Read and write this memory from now on; what was captured for another place is forgotten."""
        assert isinstance(memory.states, DeviceStates)
        self._memory, self._states = memory, memory.states
        for frames in self._frames.values():
            frames.clear()

    def enter(
        self,
        states: Any,
        ids: np.ndarray,
        initial: np.ndarray | None,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """As `RowGraphs.enter`."""
        frame = self._frame(ENTER, spans, len(ids))
        frame["ids"][: len(ids)] = ids
        self._run(frame, spans, tables, len(ids))
        return np.asarray(states.begin(ids, frame.results["encoded"][: len(ids)], initial))

    def step(self, states: Any, lines: np.ndarray, spans: Several[Span], tables: Tables) -> int:
        """As `RowGraphs.step`, of one loop."""
        count = len(lines)
        frame = self._frame(STEP, spans, count)
        frame.put_lines(lines, states.lines)
        loop, last, threshold = np.empty(count, np.int64), np.empty(count, np.bool_), np.empty(count, np.float32)
        put_knobs(states, lines, spans, loop, last[None], threshold[None])
        frame["loop"][:count], frame["last"][:count] = loop, last
        frame["halt_threshold"][:count] = threshold.view(np.int32)
        self._run(frame, spans, tables[0], count)
        self.downloads += 1
        halted, depth = self._place.read(frame.results["seen"])[:, :count]
        states.saw(lines, halted != 0, depth)
        return 1

    def leave(
        self,
        states: Any,
        lines: np.ndarray,
        early: np.ndarray,
        pick: np.ndarray,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """As `RowGraphs.leave`."""
        frame = self._frame(LEAVE, spans, len(lines), len(pick))
        frame.put_lines(lines, states.lines)
        frame["pick"][: len(pick)] = pick
        frame.results["answer"][: len(lines)] = states.answers(lines, early)
        self._run(frame, spans, tables, len(lines))
        self.downloads += 1
        return self._place.read(frame.results["logits"][: len(pick)].clone())

    def _frame(self, graph: str, spans: Several[Span], rows: int, wanted: int = 0) -> _Frame:
        """The tensors and the launch for so many rows of these spans, of the next size that there is."""
        paged = any(port.role == "cache" for port in self.spec.graphs[graph].inputs)
        size = min(1 << (rows - 1).bit_length(), self.most_rows)
        key = (size, blocks_of(spans) if paged else 0, size if wanted > 1 else wanted)
        frames = self._frames[graph]
        frame = frames.pop(key, None)
        if frame is None:
            while len(frames) >= MOST_FRAMES:
                frames.popitem(last=False)  # the one that was used longest ago
            frame = self._make(graph, *key, paged)
        frames[key] = frame
        return frame

    def _run(self, frame: _Frame, spans: Several[Span], tables: Several[Table], rows: int) -> None:
        if frame.paged:
            place = frame["position"][:rows], frame["span"][:rows], frame.tables[None]
            put_place(spans, [tables], *place, self._numbers)
            frame["span"][rows:] = -1
        frame.there.copy_(frame.here)
        self.uploads += 1
        self.launches += 1
        try:
            with self._place.torch.no_grad():
                frame.launch()
        except _FAILURES as error:
            raise BackendFailed(f"torch could not finish a call of the row graphs: {error}") from error

    # -- what is captured ---------------------------------------------------------------------------------------------

    def _make(self, graph: str, rows: int, blocks: int, wanted: int, paged: bool) -> _Frame:
        frame = _Frame(self._place, rows, blocks, wanted, paged)
        frame["lines"][:] = self._states.lines  # padding, for as long as it is captured
        frame["span"][:] = -1
        frame.there.copy_(frame.here)
        work = {ENTER: self._entering, STEP: self._stepping, LEAVE: self._leaving}[graph](frame)
        try:
            with self._place.torch.no_grad():
                frame.launch = self._captures.capture(work)
        except _FAILURES as error:
            raise BackendFailed(
                f"torch could not prepare a call of {rows} rows of {graph}: {error} (MYTHOS_ROW_GRAPHS=0 runs it "
                "without CUDA graphs)"
            ) from error
        return frame

    def _entering(self, frame: _Frame) -> Callable[[], None]:
        frame.results["encoded"] = encoded = self._lines_like(ENCODED, frame.rows)

        def work() -> None:
            (out,) = self._call(ENTER, frame.given(), {})
            encoded.copy_(out)

        return work

    def _stepping(self, frame: _Frame) -> Callable[[], None]:
        arrays = self._states.arrays
        names = [str(port.group) for port in self.spec.graphs[STEP].outputs if port.role == "state_next"]
        seen = self._place.zeros((2, frame.rows), "int32")
        frame.results["seen"] = seen

        def work() -> None:
            given = frame.given() | frame.knobs()
            lines = given["lines"]
            carried = {name: arrays[name].index_select(0, lines) for name in names}
            read = {"encoded": arrays[ENCODED].index_select(0, lines), "ids": arrays[TOKEN].index_select(0, lines)}
            ahead = dict(zip(names, self._call(STEP, given | read, carried), strict=True))
            for name, tensor in ahead.items():
                arrays[name].index_copy_(0, lines, tensor)
                arrays[name][-1:].zero_()  # or what padding computes would grow, loop after loop
            seen[0].copy_(ahead[HALTED])
            seen[1].copy_(ahead[DEPTH])

        return work

    def _leaving(self, frame: _Frame) -> Callable[[], None]:
        arrays = self._states.arrays
        frame.results["answer"] = answer = self._lines_like(ENCODED, frame.rows)
        frame.results["logits"] = logits = self._place.zeros((len(frame["pick"]), self.spec.vocab_size), "float32")

        def work() -> None:
            given = frame.given()
            read = {"answer": answer, "ids": arrays[TOKEN].index_select(0, given["lines"])}
            (out,) = self._call(LEAVE, given | read, {})
            logits.copy_(out)

        return work

    def _call(self, graph: str, given: Mapping[str, Any], carried: Mapping[str, Any]) -> Any:
        ports = self.spec.graphs[graph].inputs
        pages: PagedCache | None = self._memory.loop if graph == STEP else self._memory.around
        slot = self._around if graph == LEAVE else 0
        arguments = []
        for port in ports:
            if port.role == "cache":
                assert pages is not None
                arguments.append(pages.memory[slot])
                slot += 1
            else:
                arguments.append(carried[str(port.group)] if port.role == "state" else given[port.role])
        return self._programs[graph](*arguments)

    def _lines_like(self, name: str, rows: int) -> Any:
        held = self._states.arrays[name]
        return held.new_zeros((rows, *held.shape[1:]))


class _Frame:
    """The numbers of calls of one size, on the host and where the graph reads them, and what comes of them.

    Attributes:
        here, there: all numbers, int64, on the host and on the device.
        tables: [spans, blocks], on the host.
        results: tensors by name, the same at every call; what a call reads beside the numbers is among them.
        launch: runs the graph on what is there.
    """

    launch: Callable[[], None]

    def __init__(self, place: TorchPlace, rows: int, blocks: int, wanted: int, paged: bool) -> None:
        """For as many spans as rows, with tables of so many blocks."""
        self.rows, self.paged, self._torch, self._table = rows, paged, place.torch, (rows, blocks)
        by_row = ("ids", "lines", "position", "span", "loop", "last", "halt_threshold")
        counts = dict.fromkeys(by_row, rows) | {"pick": wanted, "tables": rows * blocks}
        self._places: dict[str, slice] = {}
        end = 0
        for name, count in counts.items():
            self._places[name] = slice(end, end + count)
            end += count + count % 2  # kernels may count on 16 bytes
        numbers = np.zeros(end, np.int64)
        self.here, self.there = place.torch.from_numpy(numbers), place.zeros((end,), "int64")
        self._numbers = numbers
        self.tables = self["tables"].reshape(self._table)
        self.results: dict[str, Any] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """Numbers of a name, on the host."""
        return self._numbers[self._places[name]]

    def put_lines(self, lines: np.ndarray, spare: int) -> None:
        self["lines"][: len(lines)] = lines
        self["lines"][len(lines) :] = spare

    def given(self) -> dict[str, Any]:
        """The numbers by the role of the graph's input, on the device."""
        found = {name: self.there[place] for name, place in self._places.items()}
        return found | {"tables": found["tables"].reshape(self._table)}

    def knobs(self) -> dict[str, Any]:
        """Those that are no integers, of `there` as it is when this runs."""
        last, bits = (self.there[self._places[name]] for name in ("last", "halt_threshold"))
        return {"last": last != 0, "halt_threshold": bits.to(self._torch.int32).view(self._torch.float32)}
