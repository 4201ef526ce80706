"""Eager model -> captured program: torch.export with the loop kept as one `while_loop` node."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mythos_export.errors import CaptureError
from mythos_model import MythosConfig, MythosModel, Output

INPUT_NAMES = (
    "input_ids",
    "positions",
    "past_lengths",
    "max_loops",
    "halt_threshold",
    "early_exit",
    "past_layers",
    "past_loop",
)
OUTPUT_NAMES = Output._fields


@dataclass(frozen=True)
class Captured:
    """A captured program.

    Attributes:
        program: the exported program; inputs and outputs are the ports of the model graph.
        config: the model's configuration.
        precision: dtype of weights and caches.
    """

    program: ExportedProgram
    config: MythosConfig
    precision: torch.dtype


class Exportable(nn.Module):
    """The model with the ports as its only arguments, all tensors, and the loop driven by `while_loop`."""

    def __init__(self, model: MythosModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        past_lengths: Tensor,
        max_loops: Tensor,
        halt_threshold: Tensor,
        early_exit: Tensor,
        past_layers: Tensor,
        past_loop: Tensor,
    ) -> tuple[Tensor, ...]:
        ports = (input_ids, positions, past_lengths, max_loops, halt_threshold, early_exit, past_layers, past_loop)
        return tuple(self.model(*ports, use_while_loop=True))


def capture(model: MythosModel) -> Captured:
    """Trace a model into a program with dynamic batch, tokens, past and loop depths.

    Raises:
        CaptureError: torch.export refused; the message carries its reason.
    """
    config = model.config
    precision = model.dtype
    # Any sizes do, as long as no two that may differ are equal and none is 0 or 1.
    B, T, S, N = 2, 3, 5, 7
    layers, C = config.prelude_layers + config.coda_layers, config.cache_dim
    example = (
        torch.zeros(B, T, dtype=torch.int64),
        torch.arange(T).expand(B, T) + 2,
        torch.full((B,), 2),
        torch.tensor(2),
        torch.tensor(config.act_threshold, dtype=torch.float32),
        torch.tensor(True),
        torch.zeros(layers, B, S, C, dtype=precision),
        torch.zeros(N, B, S, C, dtype=precision),
    )
    batch, tokens = Dim("batch", min=1, max=1 << 20), Dim("tokens", min=1, max=1 << 24)
    past, loops = Dim("past", min=0, max=1 << 24), Dim("loops", min=1, max=1 << 20)
    past_shape = {1: batch, 2: past}
    shapes: tuple[dict[int, Dim], ...] = (
        {0: batch, 1: tokens},
        {0: batch, 1: tokens},
        {0: batch},
        {},
        {},
        {},
        past_shape,
        {0: loops} | past_shape,
    )
    try:
        with torch.no_grad():
            program = torch.export.export(Exportable(model), example, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises many types; what it says is what helps
        raise CaptureError(f"torch.export could not capture the model: {str(error).strip().splitlines()[0]}") from error
    _chain_symbolic_sums(program)
    _forget_stack_traces(program)
    return Captured(program, config, precision)


def save_program(captured: Captured, path: Path) -> None:
    """Write the program as a `.pt2` archive."""
    torch.export.save(captured.program, path)


def load_program(path: Path) -> nn.Module:
    """The program of a `.pt2` archive as a callable module."""
    import mythos_model.ops  # noqa: F401  (registers the operators that the program calls)

    return torch.export.load(path).module()


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
