"""Eager model -> captured program: torch.export with the loop kept as one `while_loop` node."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mythos_export.errors import CaptureError
from mythos_export.passes.name_dimensions import NAMES
from mythos_model import LoopedModel
from mythos_model.rows import RowParts
from mythos_runtime.ports import Port, Ports, shape_of
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.spec import MODEL, LoopSpec

# Sizes of the example that is traced: any do, as long as no two that may differ are equal and none is 0 or 1.
_EXAMPLE = {"B": 2, "T": 3, "P": 5, "N": 7, "R": 11, "S": 13, "K": 17, "G": 19, "W": 23}
_RANGES = {"B": (1, 1 << 20), "T": (1, 1 << 24), "P": (0, 1 << 24), "N": (1, 1 << 20)}
_RANGES |= dict.fromkeys("RSKGW", (1, 1 << 24))


@dataclass(frozen=True)
class Captured:
    """A captured program.

    Attributes:
        graphs: of the spec that it holds, one behind the other.
        ports: its inputs and outputs, in their order; the names are those of the graph, or GRAPH/NAME with several.
    """

    program: ExportedProgram
    spec: LoopSpec
    graphs: tuple[str, ...] = (MODEL,)

    @property
    def ports(self) -> Ports:
        return _ports(self.spec, self.graphs)


class Exportable(nn.Module):
    """The model with the ports as its only arguments, all tensors, and the loop driven by `while_loop`."""

    def __init__(self, model: LoopedModel) -> None:
        super().__init__()
        self.model, self.ports = model, model.spec.ports

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        inputs = {port.name: value for port, value in zip(self.ports.inputs, arguments, strict=True)}
        outputs = self.model.run(inputs, use_while_loop=True)
        return tuple(outputs[port.name] for port in self.ports.outputs)


def capture(model: LoopedModel) -> Captured:
    """Trace a model into a program with dynamic batch, tokens, past and loop depths.

    Raises:
        CaptureError: torch.export refused; the message carries its reason.
    """
    spec = model.spec
    return Captured(_trace(Exportable(model), spec.ports), spec)


def capture_rows(model: LoopedModel) -> Captured | None:
    """Trace the row graphs, enter, step and leave, as one program with dynamic rows, spans and pages; None where the
    model's exit rule has none.

    Raises:
        CaptureError: as `capture`.
    """
    spec = model.spec
    if not set(GRAPHS) <= set(spec.graphs):
        return None
    return Captured(_trace(RowParts(model), _ports(spec, GRAPHS)), spec, GRAPHS)


def _ports(spec: LoopSpec, graphs: tuple[str, ...]) -> Ports:
    if len(graphs) == 1:
        return spec.graphs[graphs[0]]
    inputs, outputs = (
        tuple(replace(port, name=f"{name}/{port.name}") for name in graphs for port in getattr(spec.graphs[name], side))
        for side in ("inputs", "outputs")
    )
    return Ports(inputs, outputs)


def _trace(module: nn.Module, ports: Ports) -> ExportedProgram:
    symbols = {symbol: Dim(NAMES[symbol], min=least, max=most) for symbol, (least, most) in _RANGES.items()}
    example = tuple(_example(port) for port in ports.inputs)
    shapes = tuple({axis: symbols[dim] for axis, dim in _dynamic(port)} for port in ports.inputs)
    try:
        with torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # torch.export raises many types; what it says is what helps
        raise CaptureError(f"torch.export could not capture the model: {first_line(error)}") from error
    _chain_symbolic_sums(program)
    _forget_stack_traces(program)
    return program


def first_line(error: Exception) -> str:
    """What an error says, cut to a line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _example(port: Port) -> Tensor:
    dtype = getattr(torch, port.dtype)
    if port.role == "positions":
        return torch.arange(_EXAMPLE["T"]).expand(_EXAMPLE["B"], -1) + 2
    return torch.full(shape_of(port, _EXAMPLE), port.role in ("past_lengths", "max_loops") and 2, dtype=dtype)


def _dynamic(port: Port) -> list[tuple[int, str]]:
    return [(axis, dim) for axis, dim in enumerate(port.dims) if isinstance(dim, str)]


def _forget_stack_traces(program: ExportedProgram) -> None:
    """They hold paths of this machine, and go wherever the bundle goes."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _chain_symbolic_sums(program: ExportedProgram) -> None:
    """Rewrite torch.sym_sum nodes as chains of additions: torch.export.save does not know them."""
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in list(module.graph.nodes):
            if node.op != "call_function" or node.target is not torch.sym_sum:
                continue
            terms = list(node.args[0])
            total = terms[0]
            with module.graph.inserting_before(node):
                for term in terms[1:]:
                    summed = module.graph.call_function(operator.add, (total, term))
                    summed.meta["val"] = _value(total) + _value(term)
                    total = summed
            node.replace_all_uses_with(total)
            module.graph.erase_node(node)
        module.recompile()


def _value(term: Any) -> Any:
    return term.meta["val"] if isinstance(term, torch.fx.Node) else term
