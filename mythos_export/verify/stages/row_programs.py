"""The row graphs in PyTorch, reloaded from rows.pt2 and cut as the runtime cuts them, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from mythos_export.errors import ParityError
from mythos_export.verify.stages.program import ERRORS, trace_taps
from mythos_export.verify.stages.rows import Array, Rows
from mythos_export.verify.stages.stage import Bundle, Stage, failing
from mythos_export.verify.threads import SMALL, threads
from mythos_export.verify.trace import Values, names, to_numpy, to_torch
from mythos_export.verify.twin import Parts
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.program import WEIGHTS, load_program
from mythos_runtime.row_ports import ROWS, STEP


class RowPrograms(Rows):
    """rows.pt2, driven as the ONNX row graphs are."""

    name: ClassVar[str] = "row programs"
    runner: ClassVar[str] = "PyTorch"
    artifact: ClassVar[str] = ROWS

    def __init__(self, bundle: Bundle) -> None:
        import mythos_model.paged_ops  # noqa: F401  (registers operators that the program calls)

        self.spec, self.bundle, self.seen = bundle.spec, bundle, None
        self.program = load_program(bundle.folder / ROWS)
        self.threads = bundle.threads or (1 if bundle.weight_bytes < SMALL else None)
        module = self.program.module()
        tapped = {name: node.all_input_nodes[0] for name, node in trace_taps(module.graph).items()}
        ports = {str(port.group): port.name for port in self.spec.graphs[STEP].outputs if port.role == "state_next"}
        self.shown = [name for name in names(self.spec) if name in tapped]
        self.taps = {name: name if name in tapped else ports.get(name, "") for name in names(self.spec)}
        blind = [name for name, place in self.taps.items() if not place]
        if blind:
            raise ParityError(f"cannot look inside the step of {ROWS}: nothing in it is tapped as {blind[0]}")
        self.parts_of_program = cut(module, self.spec.graphs, {STEP: [tapped[name] for name in self.shown]})

    @classmethod
    def open(cls, bundle: Bundle) -> RowPrograms:
        return cls(bundle)

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        return super().takes(bundle, inputs) and bundle.is_short(inputs)

    @classmethod
    def files(cls, bundle: Bundle) -> list[str]:
        return [ROWS, WEIGHTS]

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        return None

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        return Stage.values(self, inputs, iterations)

    def weights(self) -> dict[str, Mapping[str, np.ndarray]]:
        held = {**self.program.state_dict, **self.program.constants}
        return {ROWS: {name: to_numpy(value) for name, value in held.items() if isinstance(value, torch.Tensor)}}

    def compute(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        ports = self.spec.graphs[graph]
        tensors = {port.name: to_torch(feeds[port.name]).clone() for port in ports.inputs}  # caches are written into
        for port in ports.inputs:
            if port.role == "position":  # of padding -1, which is no index here; the engine has 0 there
                tensors[port.name].clamp_(min=0)
        with failing(self.runner, *ERRORS), torch.no_grad(), threads(self.threads):
            results = self.parts_of_program[graph](*tensors.values())
        own = [port.name for port in ports.outputs if port.role != "cache_next"]
        found = dict(zip([*own, *(self.shown if graph == STEP else [])], results, strict=True))
        found |= {f"{port.name}_next": tensors[port.name] for port in ports.inputs if port.role == "cache"}
        return {name: to_numpy(tensor) for name, tensor in found.items()}
