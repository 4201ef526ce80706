"""The three row graphs, which the engine runs; here in ONNX Runtime on the CPU.

What happens around a call takes as long as a loop of a small model does. So where the bundle has the step in a Loop,
rows that stay together run several loops in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Protocol

import numpy as np

from mythos_runtime.engine.call_inputs import Tables, put_knobs, put_stops
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.pages import Table
from mythos_runtime.engine.part import Part, StepPart
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import ENCODED, States
from mythos_runtime.errors import BackendFailed
from mythos_runtime.ort import OrtSession
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, LOOPS_FILE, STEP
from mythos_runtime.spec import LoopSpec


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
