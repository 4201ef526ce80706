"""The step in a Loop (`loops.onnx`) between the other two row graphs, as the engine runs rows that stay together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mythos_export.errors import ParityError
from mythos_export.verify.stages.onnxruntime import run
from mythos_export.verify.stages.rows import Array, RowCall, RowKernels
from mythos_export.verify.stages.stage import Bundle
from mythos_export.verify.trace import Answer, Trace
from mythos_runtime.row_ports import GRAPHS, LOOPS, LOOPS_FILE, STEP, loop_ports


class RowLoops(RowKernels):
    """Every case twice, loop by loop and several in a call: with the same bits, so that what is seen inside the one is
    what the other computes, but for what nobody reads of a row that has halted, in its last loop. A call ends behind a
    loop in which a row halts, and the next one goes on."""

    name: ClassVar[str] = "rows, looped"
    artifact: ClassVar[str] = LOOPS_FILE

    def __init__(self, bundle: Bundle, whole: bool = False) -> None:
        super().__init__(bundle, whole)
        self._in_loop = False

    @classmethod
    def graphs(cls, bundle: Bundle) -> tuple[str, ...]:
        return (*GRAPHS, LOOPS)

    def answer(self, inputs: Mapping[str, Array]) -> Answer:
        stepped = super().answer(inputs)
        self._in_loop = True
        try:
            looped = super().answer(inputs)
        finally:
            self._in_loop = False
        for name, array in looped.outputs.items():
            if not np.array_equal(array, stepped.outputs[name], equal_nan=array.dtype.kind == "f"):
                raise ParityError(f"{self.artifact} computes another {name}, bit for bit, than {STEP}.onnx")
        return stepped

    def looped(
        self, call: RowCall, encoded: Array, state: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], int, Trace | None]:
        if not self._in_loop:
            return super().looped(call, encoded, state)
        ports = loop_ports(self.spec.graphs[STEP])
        loops = 0
        while loops < call.limit and (not call.early_exit or not state["halted"][call.real].all()):
            left = call.limit - loops
            given = call.place | {
                "loops": np.array(left),
                "spans": np.array(call.batch),
                "stops": call.real & ~state["halted"],
                "encoded": encoded,
                "ids": call.ids,
                "loop": np.full(call.rows, loops),
                "last": np.repeat(np.arange(left) == left - 1, call.rows).reshape(left, call.rows),
                "halt_threshold": np.tile(call.threshold, (left, 1)),
                "tables": call.loop.tables[loops : call.limit].reshape(left * call.batch, -1),
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
