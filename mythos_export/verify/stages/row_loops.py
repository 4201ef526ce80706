"""The step in a Loop (`loops.onnx`) between the other two row graphs, as the engine runs rows that stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mythos_export.verify.stages.onnxruntime import run
from mythos_export.verify.stages.operators import Native
from mythos_export.verify.stages.rows import Array, RowCall, Rows
from mythos_export.verify.stages.stage import Bundle
from mythos_export.verify.trace import Trace, Values
from mythos_export.verify.twin import Parts
from mythos_runtime.row_ports import ENTER, LEAVE, LOOPS, LOOPS_FILE, STEP, loop_ports


class RowLoops(Native, Rows):
    """What comes out is compared; from inside the same step is looked at elsewhere. Every call ends behind a loop in
    which a row halts, and the next one goes on."""

    name: ClassVar[str] = "rows, looped"
    artifact: ClassVar[str] = LOOPS_FILE
    looks_inside: ClassVar[bool] = False

    @classmethod
    def graphs(cls, bundle: Bundle) -> tuple[str, ...]:
        return ENTER, LOOPS, LEAVE

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        return None

    def looped(
        self, call: RowCall, encoded: Array, state: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], int, Trace | None]:
        ports = loop_ports(self.spec.graphs[STEP])
        loops = 0
        while loops < call.limit and (not call.early_exit or not state["halted"][call.real].all()):
            left = call.limit - loops
            given = call.place | {
                "loops": np.array(left),
                "stops": call.real & ~state["halted"],
                "encoded": encoded,
                "ids": call.ids,
                "loop": np.full(call.rows, loops),
                "last": np.repeat(np.arange(left) == left - 1, call.rows).reshape(left, call.rows),
                "halt_threshold": np.tile(call.threshold, (left, 1)),
                "tables": call.loop.tables[loops : call.limit],
            }
            feeds: dict[str, Array] = {}
            pages = iter(call.loop.memory)  # written to where they are
            for port in ports.inputs:
                value = state[str(port.group)] if port.role == "state" else given.get(port.role)
                feeds[port.name] = next(pages) if value is None else value.astype(port.dtype)
            got = run(self.sessions[LOOPS], feeds, self.bundle.linked)
            state = {str(port.group): got[port.name] for port in ports.outputs if port.role == "state_next"}
            loops += int(got[ports.of("ran").name])
        return state, loops, None

    def values(self, inputs: Mapping[str, Array], iterations: Sequence[int]) -> list[Values]:
        return [Values() for _ in iterations]
