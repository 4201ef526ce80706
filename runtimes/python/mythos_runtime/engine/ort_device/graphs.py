"""The row graphs in ONNX Runtime on a device, with tensors that stay bound from call to call.

A call is one call of a graph, which takes the rows' states out of the pools' lines and puts what it makes into them. A
frame is a graph for calls of some size, bound to where all of it lies; pools and caches are bound as input and output
both, which writes them in place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, blocks_of, put_knobs, put_place
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.ort_device.device import Bound, Numbers, OrtDevice
from mythos_runtime.engine.ort_device.memory import OrtStates
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.part import MOST_FRAMES
from mythos_runtime.engine.sequence import Span
from mythos_runtime.errors import BackendFailed
from mythos_runtime.line_ports import INITIAL, rows_on_lines
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import shape_of
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, STEP
from mythos_runtime.spec import LoopSpec

_ELSEWHERE = ("cache", "pool")  # roles of inputs that are no numbers of a call


@dataclass(frozen=True)
class Frame:
    """The graph of a call of some size, and its numbers."""

    numbers: Numbers
    bound: Bound

    def run(self) -> list[np.ndarray]:
        """Take the numbers there and run; what the graph has on the host. Raises BackendFailed."""
        self.numbers.cross()
        return self.bound()


class OrtGraphs:
    """See `engine.graphs.Graphs`.

    Attributes:
        most_rows: of a call. most_loops: of a call of the step.
        device: where they run.
    """

    most_loops = 1

    def __init__(
        self, spec: LoopSpec, sessions: Mapping[str, OrtSession], device: OrtDevice, memory: Memory, most_rows: int
    ) -> None:
        """
        Args:
            sessions: of the row graphs on lines (`rows_on_lines`) by the row graph's name, on the device.
            memory: whose pages and states (`OrtPlace`, `OrtStates`) the calls read and write.
            most_rows: of a call.
        """
        self.spec, self.most_rows, self.device = spec, most_rows, device
        self._sessions, self._ports = sessions, rows_on_lines(spec)
        self._around = next((group.before for group in spec.caches if not group.per_loop), 0)
        self._numbers = np.arange(most_rows)
        self._unused = np.zeros(most_rows, np.float32)  # a knob that the model lacks
        self._frames: OrderedDict[tuple[Any, ...], Frame] = OrderedDict()
        self._stepping = False  # a step has begun, and replaced some of its states at most
        self.bind(memory)

    def bind(self, memory: Memory) -> None:
        """Read and write this memory from now on."""
        assert isinstance(memory.states, OrtStates)
        self._memory, self._states = memory, memory.states
        self._frames.clear()

    def enter(
        self,
        states: Any,
        ids: np.ndarray,
        initial: np.ndarray | None,
        spans: Several[Span],
        tables: Several[Table],
    ) -> np.ndarray:
        """As `RowGraphs.enter`."""
        lines: np.ndarray
        with states.taken(len(ids)) as lines:
            frame = self._frame(ENTER, spans, len(ids))
            frame.numbers["lines"][:], frame.numbers["ids"][:] = lines, ids
            if initial is not None:
                frame.numbers[INITIAL][:] = initial
            self._put_place(frame, spans, tables)
            frame.run()
        return lines

    def step(self, states: Any, lines: np.ndarray, spans: Several[Span], tables: Tables) -> int:
        """As `RowGraphs.step`, of one loop. A call that fails may have replaced some states: none follows it.

        Raises:
            BackendFailed: ONNX Runtime could not finish the call, or one before it.
        """
        if self._stepping:
            raise BackendFailed(
                "a step failed half-way, and left states on the device of no loop: open the engine again"
            )
        frame = self._frame(STEP, spans, len(lines))
        numbers = frame.numbers
        numbers["lines"][:] = lines
        threshold = numbers.here.get("halt_threshold", self._unused[: len(lines)])
        put_knobs(states, lines, spans, numbers["loop"], numbers["last"][None], threshold[None])
        self._put_place(frame, spans, tables[0])
        self._stepping = True
        (seen,) = frame.run()
        self._stepping = False
        states.saw(lines, seen[:, 0] != 0, seen[:, 1])
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
        frame.numbers["lines"][:], frame.numbers["pick"][:] = lines, pick
        if "early" in frame.numbers.here:
            frame.numbers["early"][:] = early
        self._put_place(frame, spans, tables)
        (logits,) = frame.run()
        return logits

    def _put_place(self, frame: Frame, spans: Several[Span], tables: Several[Table]) -> None:
        if "tables" in frame.numbers.here:
            position, span, table = (frame.numbers[name] for name in ("position", "span", "tables"))
            put_place(spans, [tables], position, span, table[None], self._numbers)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, graph: str, spans: Several[Span], rows: int, wanted: int = 0) -> Frame:
        """For so many rows of these spans."""
        key = (graph, rows, blocks_of(spans) if self._ports[graph].has("cache") else 0, wanted)
        frame = self._frames.pop(key, None)
        if frame is None:
            if len(self._frames) >= len(GRAPHS) * MOST_FRAMES:
                self._frames.popitem(last=False)  # the one that was used longest ago
            frame = self._make(*key)
        self._frames[key] = frame
        return frame

    def _make(self, graph: str, rows: int, blocks: int, wanted: int) -> Frame:
        ports = self._ports[graph]
        pages = self._memory.loop if graph == STEP else self._memory.around
        sizes = {"R": rows, "S": rows, "K": blocks, "W": wanted, "G": pages.pages if pages is not None else 0}
        sizes["L"] = self._states.lines
        numbered = [port for port in ports.inputs if port.role not in _ELSEWHERE]
        numbers = Numbers(self.device, {port.role: (port.dtype, shape_of(port, sizes)) for port in numbered})
        addresses = {port.name: numbers.address(port.role) for port in numbered}
        held = self._caches(graph, pages)
        held |= {
            port.name: self._states.arrays[str(port.group)].address for port in ports.inputs if port.role == "pool"
        }
        addresses |= held | {f"{name}_next": address for name, address in held.items()}
        return Frame(numbers, self.device.bound(self._sessions[graph], ports, addresses, sizes))

    def _caches(self, graph: str, pages: PagedCache | None) -> dict[str, int]:
        """The addresses of the layers' pages."""
        names = [port.name for port in self._ports[graph].inputs if port.role == "cache"]
        if not names or pages is None:
            return {}
        first = self._around if graph == LEAVE else 0
        slot = pages.memory.nbytes // pages.memory.shape[0]
        return {name: pages.memory.address + (first + index) * slot for index, name in enumerate(names)}
