"""The verification twin: the shipped ONNX graph, with what happens inside its Loop as further outputs.

    twin = make_twin(load_graph(path), ["h", "experts"])
    twin.model            # the same graph, plus scan outputs of the Loop
    twin.trace(values)    # -> Trace

It is made from the file that ships, so it cannot drift; its ordinary outputs are compared with the shipped graph's bit
for bit. The values that verification looks at have names of their own in the Loop's body: `inside/h` and so on, given
by lowering (`passes/name_taps.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from mythos_export.errors import ParityError
from mythos_export.verify.trace import Trace, Values

INSIDE = "inside/"  # before a tapped value's name, in the body
SEEN = "seen/"  # before the same, as an output of the twin


@dataclass(frozen=True)
class Twin:
    """A graph with taps. `taps` maps an output of the model to the body's value that it shows, iteration by iteration;
    `shipped` are the ordinary outputs."""

    model: ModelProto
    shipped: tuple[str, ...]
    taps: Mapping[str, str]

    def trace(self, outputs: Mapping[str, np.ndarray]) -> Trace:
        """The trace among a run's outputs (of a twin of `make_twin`)."""
        return Trace({output.removeprefix(SEEN): outputs[output] for output in self.taps})


def loop_of(graph: GraphProto) -> NodeProto:
    """The graph's Loop node. Raises ParityError where there is none, or several."""
    found = [node for node in graph.node if node.op_type == "Loop"]
    if len(found) != 1:
        raise ParityError(f"cannot look inside the loop: the graph should hold one Loop, found {len(found)}")
    return found[0]  # type: ignore[no-any-return]


def body_of(loop: NodeProto) -> GraphProto:
    """The body of a Loop node."""
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Parts:
    """The nodes of an artifact in the order of the dataflow, and the value in `inside` that says whether to go on."""

    before: Sequence[NodeProto]
    inside: Sequence[NodeProto]
    behind: Sequence[NodeProto]
    goes_on: str | None = None


def parts_of(graph: GraphProto) -> Parts:
    """Of a graph with a Loop."""
    loop, nodes = loop_of(graph), list(graph.node)
    at = next(index for index, node in enumerate(nodes) if node.op_type == "Loop")
    return Parts(nodes[:at], body_of(loop).node, nodes[at + 1 :], body_of(loop).output[0].name)


def make_twin(model: ModelProto, tensors: Iterable[str]) -> Twin:
    """Tap the tensors of a trace; the model is changed in place.

    Raises:
        ParityError: the Loop's body has no value of that name.
    """
    body = body_of(loop_of(model.graph))
    values = {name for node in body.node for name in node.output}
    taps = {SEEN + name: INSIDE + name for name in tensors}
    for value in taps.values():
        if value not in values:
            raise ParityError(
                f"cannot look inside the loop: its body computes nothing named {value} (pass developer: keep the name "
                "that passes/name_taps.py gave)"
            )
    return _tapped(model, taps)


def make_full_twin(model: ModelProto) -> Twin:
    """Tap every value of the graph, to find the operator that goes wrong first.

    In the body, those that depend on the loop's state: the others, transposed weights say, are the same in every
    iteration, and large.
    """
    body = body_of(loop_of(model.graph))
    around = [name for node in model.graph.node if node.op_type != "Loop" for name in node.output if name]
    shipped = {port.name for port in model.graph.output}
    twin = _tapped(model, {SEEN + name: name for name in _of_the_state(body)})
    for name in around:
        if name not in shipped:
            model.graph.output.append(ValueInfoProto(name=name))
    return twin


def _tapped(model: ModelProto, taps: dict[str, str]) -> Twin:
    shipped = tuple(port.name for port in model.graph.output)
    loop = loop_of(model.graph)
    body = body_of(loop)
    types = {value.name: value.type.tensor_type.elem_type for value in (*body.value_info, *body.output)}
    for output, value in taps.items():
        # An output may not be named twice: what the loop carries is an output already.
        body.node.append(helper.make_node("Identity", [value], [f"{output}/tap"]))
        body.output.append(_typed(f"{output}/tap", types.get(value)))
        loop.output.append(output)
        model.graph.output.append(_typed(output, types.get(value)))
    return Twin(model, shipped, taps)


def _typed(name: str, element: int | None) -> ValueInfoProto:
    """A port; without a known type the runtime infers it."""
    return helper.make_tensor_value_info(name, element, None) if element else ValueInfoProto(name=name)


def _of_the_state(body: GraphProto) -> list[str]:
    reached = {port.name for port in body.input}
    values: list[str] = []
    for node in body.node:
        if not reached.isdisjoint(node.input):
            values += [name for name in node.output if name]
            reached |= set(node.output)
    return values


def values_of(twin: Twin, outputs: Mapping[str, np.ndarray], iteration: int) -> Values:
    """The values of one iteration, counted from 0, among a run's outputs (of a twin of `make_full_twin`)."""
    inside = {
        value: outputs[output][iteration] for output, value in twin.taps.items() if len(outputs[output]) > iteration
    }
    around = {name: array for name, array in outputs.items() if name not in twin.taps}
    return Values(inside, around)
