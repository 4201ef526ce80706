"""Operators that only programs for PyTorch call: norms, rotations and the end of an iteration.

An ONNX graph has standard nodes in their place, or several, so they are not among `op.OPERATORS`; on a GPU each is a
Triton kernel of its own, and `--target cuda` compiles those that a bundle's programs will launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch.export import ExportedProgram

from mythos_export.kernels.launch_plan import PRECISIONS, Plan
from mythos_export.kernels.norm.plan import plans as norm_plans
from mythos_export.kernels.norm.reference import rms_norm
from mythos_export.kernels.rotary.plan import plans as rotary_plans
from mythos_export.kernels.rotary.reference import rotary_embedding
from mythos_export.kernels.tail.plan import plans as tail_plans
from mythos_export.kernels.tail.reference import loop_tail
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.row_ports import STEP
from mythos_runtime.spec import LoopSpec

_PRECISIONS = dict(zip((torch.float32, torch.float16, torch.bfloat16), PRECISIONS, strict=True))


@dataclass(frozen=True)
class Beside:
    """Such an operator.

    Attributes:
        reference: what it means, slowly, in numpy.
        wide: inputs that are float32 at any precision of the model.
    """

    reference: Callable[..., Any]
    wide: frozenset[str] = frozenset()


BESIDE: dict[str, Beside] = {
    "rms_norm": Beside(rms_norm),
    "rotary_embedding": Beside(rotary_embedding, frozenset(["cos", "sin"])),
    "loop_tail": Beside(
        loop_tail,
        frozenset(["h", "decay", "gain", "encoded", "out", "cumulative", "weight", "bias", "threshold"]),
    ),
}
"""By name, as in `mythos_model.ops`."""


def plans_of(programs: Sequence[ExportedProgram], spec: LoopSpec) -> tuple[Plan, ...]:
    """The launch plans of these operators in captured programs, each once; those of the last one's iteration, too,
    which is the program of the row graphs, if there are any (`spec`), as the engine runs it.

    In float64, which no kernel takes, there are none.
    """
    found = [plan for program in programs for plan in _called(program)]
    if programs and STEP in spec.graphs:
        found += _ends(cut(programs[-1].module(), spec.graphs)[STEP])
    return tuple({(plan.operator, plan.variant, plan.launches[0].name): plan for plan in found}.values())


def _called(program: ExportedProgram) -> Iterator[Plan]:
    """Of norms and rotations, in the graph and its loops."""
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            if node.target is torch.ops.mythos.rms_norm.default:
                x = node.args[0].meta["val"]
                weighted = node.args[1] is not None
                narrow = node.args[1].meta["val"] if weighted else x
                if x.dtype in _PRECISIONS:
                    given, precision = _PRECISIONS[x.dtype], _PRECISIONS[narrow.dtype]
                    yield from norm_plans(int(x.shape[-1]), given, precision, weighted)
            elif node.target is torch.ops.mythos.rotary_embedding.default:
                x, cos = (of.meta["val"] for of in node.args[:2])
                if x.dtype in _PRECISIONS:
                    yield from rotary_plans(int(node.args[3]), int(cos.shape[-1]), _PRECISIONS[x.dtype])


def _ends(step: Any) -> Iterator[Plan]:
    """Of what the engine puts in place of an iteration's last operators, in the graph of a step."""
    for node in step.graph.nodes:
        if node.target is torch.ops.mythos.loop_tail.default:
            down = attrgetter(node.args[2].target)(step)
            if down.dtype in _PRECISIONS:
                yield from tail_plans(down.shape[1], down.shape[0], _PRECISIONS[down.dtype])
