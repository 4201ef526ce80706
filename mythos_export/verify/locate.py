"""The operator at which a stage goes wrong: values compared in the order of the dataflow, in the first wrong iteration.

Each stage is held to those before it, which compute the same values under the same names: the CPU kernels and the
TensorRT graph to the portable graph, TensorRT's network to its graph. The portable graph's names are those of the
captured program's nodes once `align` has paired them. Everything here runs only after something was found to be wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import GraphProto, NodeProto
from torch import fx

from mythos_export.verify.align import align, describe_node, describe_program
from mythos_export.verify.cases import Case
from mythos_export.verify.stages import Bundle, Stage
from mythos_export.verify.stages.network import Network
from mythos_export.verify.stages.onnxruntime import CpuKernels, FunctionBodies, TensorRTGraph
from mythos_export.verify.stages.program import Program, trace_taps
from mythos_export.verify.stages.stage import load_graph
from mythos_export.verify.trace import Values
from mythos_export.verify.twin import INSIDE, body_of, loop_of

# Stage -> the one whose values have the same names.
SAME_NAMES: dict[str, type[Stage]] = {
    CpuKernels.name: FunctionBodies,
    TensorRTGraph.name: FunctionBodies,
    Network.name: TensorRTGraph,
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
    if not stage.artifact.endswith(".onnx"):
        return None
    graph = load_graph(bundle.folder / stage.artifact).graph
    iterations = [iteration] if iteration is not None else list(range(max(len(case.trace), 1)))
    if tensor != "loops":  # how often it runs is its condition's doing, which is no part of the program's body
        found = stage.values(case.inputs, iterations)
        for expected in _references(stage, bundle, case.inputs, iterations):
            node = _first_wrong(graph, found, expected, iteration is None, limit)
            if node is not None:
                return describe_node(node)
    return _producer(graph, tensor)


def _references(
    stage: Stage, bundle: Bundle, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]
) -> Iterator[list[Values]]:
    """What to hold the values to, by the graph's own names; the nearest first."""
    before = SAME_NAMES.get(stage.name)
    while before is not None:
        with contextlib.closing(before.open(bundle)) as opened:
            values = opened.values(inputs, iterations)
        yield values
        before = SAME_NAMES.get(before.name)
    program = Program.open(bundle)
    around, body = program.graphs()
    # The portable graph has an operator a node, as the program does; a graph with inlined bodies would pair up wrongly.
    portable = load_graph(bundle.folder / FunctionBodies.artifact).graph
    pairs, pairs_around = align(body_of(loop_of(portable)).node, body), align(portable.node, around)
    yield [
        Values(_renamed(values.inside, pairs), _renamed(values.around, pairs_around))
        for values in program.values(inputs, iterations)
    ]


def _renamed(values: Mapping[str, np.ndarray], pairs: Mapping[str, fx.Node]) -> dict[str, np.ndarray]:
    return {name: values[node.name] for name, node in pairs.items() if node.name in values}


def _first_wrong(
    graph: GraphProto, found: Sequence[Values], expected: Sequence[Values], behind: bool, limit: float
) -> NodeProto | None:
    """In the order of the dataflow: before the loop, its iterations and, if `behind`, what comes after it."""
    at = next(index for index, node in enumerate(graph.node) if node.op_type == "Loop")
    body = body_of(graph.node[at]).node
    parts = [(graph.node[:at], found[0].around, expected[0].around)]
    parts += [(body, ours.inside, theirs.inside) for ours, theirs in zip(found, expected, strict=True)]
    if behind:
        parts.append((graph.node[at + 1 :], found[0].around, expected[0].around))
    for nodes, ours, theirs in parts:
        for node in nodes:
            for name in node.output:
                if name in ours and name in theirs and _differs(ours[name], theirs[name], limit):
                    return node
    return None


def _differs(found: np.ndarray, expected: np.ndarray, limit: float) -> bool:
    """Whether two values of the same shape differ; other shapes are other things (a transposed weight, say)."""
    if found.shape != expected.shape or not found.size:
        return False
    if found.dtype.kind not in "fV" or expected.dtype.kind not in "fV":
        return found.dtype.kind == expected.dtype.kind and not np.array_equal(found, expected)
    f, e = found.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(e[np.isfinite(e)]).max(initial=0.0) or 1.0
    return not bool(np.abs(np.where(f == e, 0, f - e)).max() <= limit * scale)


def _producer(graph: GraphProto, tensor: str) -> str | None:
    """The node that makes a tensor of the trace, or an output of the graph."""
    body = body_of(loop_of(graph))
    # How often the loop runs is its condition's doing.
    inside = body.output[0].name if tensor == "loops" else INSIDE + tensor
    found = [node for node in body.node if inside in node.output] + [n for n in graph.node if tensor in n.output]
    node = next(iter(found), None)
    return None if node is None else describe_node(node)
