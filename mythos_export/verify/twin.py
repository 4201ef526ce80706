"""The verification twin: the shipped ONNX graph, with what happens inside its Loop as further outputs.

    twin = make_twin(onnx.load(path, load_external_data=False))
    twin.model            # the same graph, plus scan outputs of the Loop
    twin.trace(values)    # -> Trace

It is made from the file that ships, so it cannot drift; its ordinary outputs are compared with the shipped graph's bit
for bit. What to tap is found by structure, not by name: the loop's state has a fixed order (`mythos_model.loop.Carry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from mythos_export.errors import ParityError
from mythos_export.verify.trace import TENSORS, Trace, Values
from mythos_model.loop import Carry

T = TypeVar("T")
PREFIX = "inside/"
_CARRIED = ("h", "cumulative", "depth", "halted", "out")


@dataclass(frozen=True)
class Twin:
    """A graph with taps. `taps` maps an output of the model to the body's value that it shows, iteration by iteration;
    `shipped` are the ordinary outputs."""

    model: ModelProto
    shipped: tuple[str, ...]
    taps: Mapping[str, str]

    def trace(self, outputs: Mapping[str, np.ndarray]) -> Trace:
        """The trace among a run's outputs (of a twin of `trace_taps`)."""
        return Trace(**{name: outputs[PREFIX + name] for name in TENSORS})


def loop_of(graph: GraphProto) -> NodeProto:
    """The graph's Loop node. Raises ParityError where there is none, or several."""
    return _only([node for node in graph.node if node.op_type == "Loop"], "Loop", "the graph")


def body_of(loop: NodeProto) -> GraphProto:
    """The body of a Loop node."""
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


def make_twin(model: ModelProto) -> Twin:
    """Tap the tensors of `trace.TENSORS`; the model is changed in place.

    Raises:
        ParityError: the Loop's body is not built as the taps expect.
    """
    loop = loop_of(model.graph)
    return _tapped(model, {PREFIX + name: value for name, value in trace_taps(body_of(loop)).items()})


def make_full_twin(model: ModelProto) -> Twin:
    """Tap every value of the graph, to find the operator that goes wrong first.

    In the body, those that hang on the loop's state: the others, transposed weights say, are the same in every
    iteration, and large.
    """
    body = body_of(loop_of(model.graph))
    around = [name for node in model.graph.node if node.op_type != "Loop" for name in node.output if name]
    shipped = {port.name for port in model.graph.output}
    twin = _tapped(model, {PREFIX + name: name for name in _of_the_state(body)})
    for name in around:
        if name not in shipped:
            model.graph.output.append(ValueInfoProto(name=name))
    return twin


def trace_taps(body: GraphProto) -> dict[str, str]:
    """Tensor of the trace -> the value in the Loop's body that holds it."""
    producers = {name: node for node in body.node for name in node.output}
    # A body's outputs are the condition and the state.
    after = dict(zip(Carry._fields, (port.name for port in body.output[1 : 1 + len(Carry._fields)]), strict=True))
    taps = {name: after[name] for name in _CARRIED}
    choice = _only([node for node in body.node if node.op_type == "TopK"], "TopK, the choice of experts")
    taps["experts"] = choice.output[1]
    picked = _only(
        [node for node in body.node if node.op_type == "GatherElements" and choice.output[1] in node.input],
        "GatherElements that reads the chosen experts' logits",
    )
    taps["weights"] = _only(
        [node for node in body.node if node.op_type == "Softmax" and picked.output[0] in node.input],
        "Softmax over the chosen experts",
    ).output[0]
    halting = [node for node in body.node if node.op_type in ("act_halting", "Reciprocal")]  # whole, or its sigmoid
    taps["p"] = _only(halting, "act_halting, or Reciprocal where it was inlined").output[0]
    write = _producer(producers, after["new_loop"], "ScatterND")
    entries = _producer(producers, write.input[2], "Unsqueeze")
    taps["entries"] = entries.input[0]
    return {name: taps[name] for name in TENSORS}


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


def _only(found: Sequence[T], what: str, where: str = "its body") -> T:
    if len(found) != 1:
        raise ParityError(
            f"cannot look inside the loop: {where} should hold one {what}, found {len(found)} "
            "(pass developer: keep it, or teach mythos_export/verify/twin.py the new form)"
        )
    return found[0]


def _producer(producers: Mapping[str, NodeProto], name: str, operator: str) -> NodeProto:
    node = producers.get(name)
    if node is None or node.op_type != operator:
        found = "an input" if node is None else node.op_type
        raise ParityError(
            f"cannot look inside the loop: {name} should come from {operator}, found {found} "
            "(pass developer: keep it, or teach mythos_export/verify/twin.py the new form)"
        )
    return node


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
