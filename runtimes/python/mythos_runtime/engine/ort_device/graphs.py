"""The row graphs in ONNX Runtime on a device, with tensors that stay bound from call to call.

A call of the step is three graphs: lines of the states are taken into a batch, the step runs on it, and what it makes
is put back. A frame is the graphs of a call of some size, bound to where all of it lies; the caches are bound as input
and output both, which appends in place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, blocks_of, put_knobs, put_place
from mythos_runtime.engine.graphs import MOST_FRAMES
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.ort_device.device import Bound, Buffer, Numbers
from mythos_runtime.engine.ort_device.lines import LineGraphs
from mythos_runtime.engine.ort_device.memory import OrtStates, Rows
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import DEPTH, ENCODED, HALTED, TOKEN
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Port, shape_of
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, STEP
from mythos_runtime.spec import LoopSpec

_PLACE = ("position", "span", "tables")
_KNOBS = ("loop", "last", "halt_threshold")


@dataclass(frozen=True)
class Frame:
    """The graphs of a call of some size: its numbers, and what runs on them, in order."""

    numbers: Numbers
    bound: tuple[Bound, ...]

    def run(self) -> list[np.ndarray]:
        """Take the numbers there and run; what the last graph has on the host. Raises BackendFailed."""
        self.numbers.cross()
        found: list[np.ndarray] = []
        for bound in self.bound:
            found = bound()
        return found


class OrtGraphs:
    """See `engine.graphs.Graphs`.

    Attributes:
        most_rows: of a call. most_loops: of a call of the step.
        lines: what moves lines of states.
    """

    most_loops = 1

    def __init__(
        self, spec: LoopSpec, sessions: Mapping[str, OrtSession], lines: LineGraphs, memory: Memory, most_rows: int
    ) -> None:
        """
        Args:
            sessions: of the row graphs by name, on the device of `lines`.
            memory: whose pages and states (`OrtPlace`, `OrtStates`) the calls read and write.
            most_rows: of a call, no more than those of `lines`.
        """
        self.spec, self.most_rows, self.lines = spec, most_rows, lines
        self._sessions, self._device = sessions, lines.device
        self._around = next((group.before for group in spec.caches if not group.per_loop), 0)
        self._numbers = np.arange(most_rows)
        self._unused = np.zeros(most_rows, np.float32)  # a knob that the model lacks
        self._encoded = lines.batch(ENCODED)
        self._frames: OrderedDict[tuple[Any, ...], Frame] = OrderedDict()
        self.bind(memory)

    def bind(self, memory: Memory) -> None:
        """Read and write this memory from now on."""
        assert isinstance(memory.states, OrtStates)
        self._memory, self._states = memory, memory.states
        self._frames.clear()

    def enter(self, ids: np.ndarray, spans: Several[Span], tables: Several[Table]) -> Rows:
        """As `RowGraphs.enter`; the result is on the device."""
        frame = self._frame(ENTER, spans, len(ids))
        frame.numbers["ids"][:] = ids
        self._put_place(frame, spans, tables)
        frame.run()
        return Rows(self._encoded.address, len(ids))

    def step(self, states: Any, lines: np.ndarray, spans: Several[Span], tables: Tables) -> int:
        """As `RowGraphs.step`, of one loop."""
        frame = self._frame(STEP, spans, len(lines))
        numbers = frame.numbers
        numbers["lines"][:] = lines
        threshold = numbers.here.get("halt_threshold", self._unused[: len(lines)])
        put_knobs(states, lines, spans, numbers["loop"], numbers["last"][None], threshold[None])
        self._put_place(frame, spans, tables[0])
        frame.run()
        halted, depth = (self._device.read(self.lines.ahead[name])[: len(lines)] for name in (HALTED, DEPTH))
        states.saw(lines, halted, depth)
        return 1

    def leave(
        self,
        states: Any,
        lines: np.ndarray,
        answers: Any,
        pick: np.ndarray,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """As `RowGraphs.leave`; `answers` are those of `OrtStates.answers`, which took the rows' tokens, too."""
        frame = self._frame(LEAVE, spans, len(lines), len(pick), answers.address)
        frame.numbers["pick"][:] = pick
        self._put_place(frame, spans, tables)
        (logits,) = frame.run()
        return logits

    def _put_place(self, frame: Frame, spans: Several[Span], tables: Several[Table]) -> None:
        if "tables" in frame.numbers.here:
            position, span, table = (frame.numbers[name] for name in _PLACE)
            put_place(spans, [tables], position, span, table[None], self._numbers)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, graph: str, spans: Several[Span], rows: int, wanted: int = 0, answers: int = 0) -> Frame:
        """For so many rows of these spans; `answers`: the address of what leaves."""
        paged = self.spec.graphs[graph].has("cache")
        key = (graph, rows, blocks_of(spans) if paged else 0, wanted, answers)
        frame = self._frames.pop(key, None)
        if frame is None:
            if len(self._frames) >= len(GRAPHS) * MOST_FRAMES:
                self._frames.popitem(last=False)  # the one that was used longest ago
            frame = self._make(*key)
        self._frames[key] = frame
        return frame

    def _make(self, graph: str, rows: int, blocks: int, wanted: int, answers: int) -> Frame:
        ports, states = self.spec.graphs[graph], self._states
        pages = self._memory.loop if graph == STEP else self._memory.around
        sizes = {"R": rows, "S": rows, "K": blocks, "W": wanted, "G": pages.pages if pages is not None else 0}
        numbered = [port for port in ports.inputs if port.role in (*_PLACE, *_KNOBS, "pick")]
        if graph == ENTER:
            numbered.append(ports.of("ids"))
        shapes = {port.role: (port.dtype, shape_of(port, sizes)) for port in numbered}
        numbers = Numbers(self._device, shapes | ({"lines": ("int64", (rows,))} if graph == STEP else {}))
        addresses = {port.name: numbers.address(port.role) for port in numbered}
        addresses |= self._caches(graph, pages)
        addresses |= {port.name: self._address(port, graph, answers) for port in _left(ports.inputs, addresses)}
        own = [port for port in _left(ports.outputs, addresses) if port.role != "logits"]
        addresses |= {port.name: self._result(port).address for port in own}
        bound = self._device.bound(self._sessions[graph], ports, addresses, sizes)
        if graph != STEP:
            return Frame(numbers, (bound,))
        lines = numbers.address("lines")
        rows_of = {**self.lines.rows, **self.lines.ahead}
        put = self.lines.putting(states.arrays, lines, rows, {name: buffer.address for name, buffer in rows_of.items()})
        return Frame(numbers, (self.lines.taking(states.arrays, lines, rows), bound, put))

    def _caches(self, graph: str, pages: PagedCache | None) -> dict[str, int]:
        """The addresses of the layers' pages, which are input and output both."""
        names = [port.name for port in self.spec.graphs[graph].inputs if port.role == "cache"]
        if not names or pages is None:
            return {}
        first = self._around if graph == LEAVE else 0
        slot = pages.memory.nbytes // pages.memory.shape[0]
        found = {name: pages.memory.address + (first + index) * slot for index, name in enumerate(names)}
        return found | {f"{name}_next": address for name, address in found.items()}

    def _address(self, port: Port, graph: str, answers: int) -> int:
        """Of an input that was on the device before the call."""
        if port.role == "answer":
            return answers
        name = {"encoded": ENCODED, "ids": TOKEN}.get(port.role, str(port.group))
        return self.lines.rows[name].address

    def _result(self, port: Port) -> Buffer:
        """Where an output goes."""
        return self._encoded if port.role == "encoded" else self.lines.ahead[str(port.group)]


def _left(ports: Several[Port], addresses: Mapping[str, int]) -> list[Port]:
    return [port for port in ports if port.name not in addresses]
