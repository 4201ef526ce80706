"""The operator at which a stage goes wrong: values compared in the order of the dataflow, in the first wrong iteration.

Each stage is held to those before it, which compute the same values under the same names: the CPU kernels and the
TensorRT graph to the portable graph, TensorRT's network to its graph. The portable graph's names are those of the
captured program's nodes once `align` has paired them; the row graphs' values are the portable graph's, a row a token.
Everything here runs only after something was found to be wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import NodeProto
from torch import fx

from mythos_export.verify.align import align, align_rows, describe_node, describe_program
from mythos_export.verify.cases import Case
from mythos_export.verify.stages import Bundle, Stage
from mythos_export.verify.stages.network import Network
from mythos_export.verify.stages.onnxruntime import CpuKernels, FunctionBodies, TensorRTGraph
from mythos_export.verify.stages.program import Program, trace_taps
from mythos_export.verify.stages.row_lines import RowLines
from mythos_export.verify.stages.row_loops import RowLoops
from mythos_export.verify.stages.rows import RowBodies, RowKernels, Rows
from mythos_export.verify.stages.stage import load_graph
from mythos_export.verify.trace import Values
from mythos_export.verify.twin import INSIDE, Parts, body_of, loop_of

# Stage -> the one whose values have the same names.
SAME_NAMES: dict[str, type[Stage]] = {
    CpuKernels.name: FunctionBodies,
    TensorRTGraph.name: FunctionBodies,
    Network.name: TensorRTGraph,
    RowKernels.name: RowBodies,
    RowLoops.name: RowBodies,
    RowLines.name: RowBodies,
}


def locate(stage: Stage, bundle: Bundle, case: Case, tensor: str, iteration: int | None, limit: float) -> str | None:
    """The first operator whose result differs by more than `limit` of its scale, in words.

    `iteration` is the first wrong one, counted from 0; without it all are looked at, then what comes after the loop.
    Where no single operator shows, the one that computes the wrong tensor; None where the stage has no operators to
    name.
    """
    if isinstance(stage, Program):
        tap = trace_taps(stage.graphs()[1]).get(tensor)
        return describe_program(tap.all_input_nodes[0]) if tap is not None else None
    parts = stage.parts(bundle)
    if parts is None:
        return None
    iterations = [iteration] if iteration is not None else list(range(max(len(case.trace), 1)))
    if tensor != "loops":  # how often it runs is its condition's doing, which is no part of the program's body
        found = stage.values(case.inputs, iterations)
        for expected in _references(stage, bundle, case, iterations):
            node = _first_wrong(parts, found, expected, iteration is None, limit)
            if node is not None:
                return describe_node(node)
    return producer(parts, tensor, behind=iteration is None)


def _references(stage: Stage, bundle: Bundle, case: Case, iterations: Sequence[int]) -> Iterator[list[Values]]:
    """What to hold the values to, by the artifact's own names; the nearest first."""
    before = SAME_NAMES.get(stage.name)
    while before is not None:
        yield _values(before, bundle, case, iterations)
        before = SAME_NAMES.get(before.name)
    if isinstance(stage, Rows):
        ours, theirs = stage.parts(bundle), FunctionBodies.parts(bundle)
        assert ours is not None and theirs is not None
        inside, before_it, behind_it = (
            align_rows(getattr(ours, part), getattr(theirs, part)) for part in ("inside", "before", "behind")
        )
        yield [
            Values(
                _rows(values.inside, inside, case.real),
                _rows(values.around, before_it, case.real),
                _rows(values.around, behind_it, case.real),
            )
            for values in _values(FunctionBodies, bundle, case, iterations)
        ]
        return
    if not (bundle.folder / Program.artifact).exists():
        return  # a linked bundle's model is the checkpoint, and others may be made without this part
    program = Program.open(bundle)
    around, body = program.graphs()
    # The portable graph has an operator a node, as the program does; a graph with inlined bodies would pair up wrongly.
    portable = load_graph(bundle.folder / FunctionBodies.artifact).graph
    pairs, pairs_around = align(body_of(loop_of(portable)).node, body), align(portable.node, around)
    yield [
        Values(_renamed(values.inside, pairs), _renamed(values.around, pairs_around))
        for values in program.values(case.inputs, iterations)
    ]


def _values(kind: type[Stage], bundle: Bundle, case: Case, iterations: Sequence[int]) -> list[Values]:
    with contextlib.closing(kind.open(bundle)) as opened:
        return opened.values(case.inputs, iterations)


def _rows(values: Mapping[str, np.ndarray], pairs: Mapping[str, str], real: np.ndarray) -> dict[str, np.ndarray]:
    """Values of a batch of tokens [B, T, ...] as those of the rows that are no padding, by the row graph's names."""
    batches = {ours: values[theirs] for ours, theirs in pairs.items() if theirs in values}
    return {name: array[real] for name, array in batches.items() if array.shape[:2] == real.shape}


def _renamed(values: Mapping[str, np.ndarray], pairs: Mapping[str, fx.Node]) -> dict[str, np.ndarray]:
    return {name: values[node.name] for name, node in pairs.items() if node.name in values}


def _first_wrong(
    parts: Parts, found: Sequence[Values], expected: Sequence[Values], behind: bool, limit: float
) -> NodeProto | None:
    """In the order of the dataflow: before the loop, its iterations and, if `behind`, what comes behind it."""
    first, true = found[0], expected[0]
    looked = [(parts.before, first.around, true.around)]
    looked += [(parts.inside, ours.inside, theirs.inside) for ours, theirs in zip(found, expected, strict=True)]
    if behind:
        ends = [values.around if values.behind is None else values.behind for values in (first, true)]
        looked.append((parts.behind, ends[0], ends[1]))
    for nodes, ours, theirs in looked:
        for node in nodes:
            for name in node.output:
                if name in ours and name in theirs and _differs(ours[name], theirs[name], limit):
                    return node
    return None


def _differs(found: np.ndarray, expected: np.ndarray, limit: float) -> bool:
    """Whether two values of the same shape, axes of one element apart, differ; other shapes are other things (a
    transposed weight, say)."""
    found, expected = found.squeeze(), expected.squeeze()
    if found.shape != expected.shape or not found.size:
        return False
    if found.dtype.kind not in "fV" or expected.dtype.kind not in "fV":
        return found.dtype.kind == expected.dtype.kind and not np.array_equal(found, expected)
    f, e = found.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(e[np.isfinite(e)]).max(initial=0.0) or 1.0
    return not bool(np.abs(np.where(f == e, 0, f - e)).max() <= limit * scale)


def producer(parts: Parts, tensor: str, behind: bool = False) -> str | None:
    """The node that makes a tensor of the trace, or an output of the graph; of what is both, as `behind` says."""
    # How often the loop runs is its condition's doing.
    inside = parts.goes_on if tensor == "loops" else INSIDE + tensor
    found = [node for node in parts.inside if inside in node.output]
    around = [node for node in (*parts.before, *parts.behind) if tensor in node.output]
    found = around + found if behind else found + around
    return describe_node(found[0]) if found else None
