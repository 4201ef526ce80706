"""The row graphs on lines of pools, made of the row graphs as they are; see `mythos_runtime.line_ports`.

    enter_lines:  enter, then what stands before the loop, the tokens and the first states into the pools' lines
    step_lines:   the rows out of the lines, the step, what it makes into the same lines
    leave_lines:  the answers out of the lines, early ones with what is left of 1, leave

They point into the row graphs' own files of weights. A pool may be one buffer as input and output, which no runtime
knows of; so nothing may read a pool behind what writes it. A state's rows are computed of what was read of them, which
sees to that; where a step does not do so by itself, it is made to, by a choice that never falls on what was read. (That
the shape of what was read is waited for would not do: ONNX Runtime knows shapes without it, and reads the pool later.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mythos_export.errors import TargetError
from mythos_export.lower import check
from mythos_runtime.line_ports import ENCODED, INITIAL, SEEN, TOKEN, held_lines, on_lines, rows_file, rows_on_lines
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.row_ports import ENTER, LEAVE, STEP
from mythos_runtime.spec import LoopSpec, StateTensor

_OWN = "lines/"  # in front of what is added
_AXIS, _ZERO, _ONE, _AT = (f"{_OWN}{name}" for name in ("axis", "zero", "one", "at"))
_CONSTANTS = (
    numpy_helper.from_array(np.array([1], np.int64), _AXIS),
    numpy_helper.from_array(np.array(0, np.float32), _ZERO),
    numpy_helper.from_array(np.array(1, np.float32), _ONE),
)

Around = tuple[list[NodeProto], list[NodeProto]]
"""What stands before a row graph's own nodes, and what behind them."""


def write_rows_on_lines(spec: LoopSpec, folder: Path) -> tuple[str, ...]:
    """Write them beside the row graphs. Returns their names.

    Raises:
        TargetError: a value of a row graph has a name that these graphs need.
        LowerError: what is made is no valid graph.
    """
    for name, ports in rows_on_lines(spec).items():
        path = folder / rows_file(name)
        onnx.save(_on_lines(onnx.load(folder / f"{name}.onnx", load_external_data=False), name, ports, spec), path)
        check(path, loops=0)
    return tuple(map(rows_file, rows_on_lines(spec)))


def _on_lines(model: onnx.ModelProto, name: str, ports: Ports, spec: LoopSpec) -> onnx.ModelProto:
    graph, rows = model.graph, spec.graphs[name]
    _refuse_taken(graph, name, ports, rows)
    before, behind = _AROUND[name](rows, spec, graph.node)
    nodes = [*before, *graph.node, *behind]
    read = {value for node in (*before, *behind) for value in node.input}
    described = {value.name: value for value in (*graph.input, *graph.output)}
    known = {port.name for port in rows.inputs}
    linked = [value for value in graph.input if value.name not in known]  # weights in files outside of the bundle
    inputs, outputs = ([described.get(port.name) or _value(port) for port in side] for side in _sides(ports))
    constants = [constant for constant in _CONSTANTS if constant.name in read]
    made = helper.make_graph(
        nodes,
        on_lines(name),
        [*inputs, *linked],
        outputs,
        [*graph.initializer, *constants],
        value_info=graph.value_info,
    )
    return helper.make_model(
        made, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def _sides(ports: Ports) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    return ports.inputs, ports.outputs


def _refuse_taken(graph: onnx.GraphProto, name: str, ports: Ports, rows: Ports) -> None:
    """Raises TargetError where a value of the row graph is called as one that is added."""
    names = {value.name for value in (*graph.input, *graph.initializer)}
    names |= {value for node in graph.node for value in node.output}
    own = {port.name for side in _sides(ports) for port in side} - {port.name for side in _sides(rows) for port in side}
    taken = sorted(value for value in names if value in own or value.startswith(_OWN))
    if taken:
        raise TargetError(f"a value of {name}.onnx is called {taken[0]}, as one of {rows_file(name)} is")


def _value(port: Port) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(numpy_dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, element, port.dims)


def _take(pool: str, row: str) -> NodeProto:
    return helper.make_node("Gather", [f"{pool}_pool", "lines"], [row], axis=0)


def _put(pool: str, row: str) -> NodeProto:
    return helper.make_node("ScatterND", [f"{pool}_pool", _AT, row], [f"{pool}_pool_next"])


def _number_lines() -> NodeProto:
    return helper.make_node("Unsqueeze", ["lines", _AXIS], [_AT])


def _entering(rows: Ports, spec: LoopSpec, _: Iterable[NodeProto]) -> Around:
    encoded, ids = rows.of("encoded").name, rows.of("ids").name
    nodes = [_number_lines(), _put(ENCODED, encoded), _put(TOKEN, ids)]
    for tensor in spec.state:
        first = {"encoded": encoded, "noise": INITIAL, "initial": INITIAL}.get(tensor.start)
        if first is None:
            first = f"{_OWN}first {tensor.name}"
            nodes += _constant(tensor, first, spec)
        nodes.append(_put(tensor.name, first))
    return [], nodes


def _constant(tensor: StateTensor, name: str, spec: LoopSpec) -> list[NodeProto]:
    """Rows of zeros or ones, as many as there are lines."""
    dtype, own = held_lines(spec)[tensor.name]
    rows, shape, sizes = (f"{name}, {part}" for part in ("rows", "shape", "sizes"))
    value = helper.make_tensor(
        "value", helper.np_dtype_to_tensor_dtype(numpy_dtype(dtype)), [1], [tensor.start == "ones"]
    )
    return [
        helper.make_node("Shape", ["lines"], [rows]),
        helper.make_node("Constant", [], [sizes], value=numpy_helper.from_array(np.array(own, np.int64))),
        helper.make_node("Concat", [rows, sizes], [shape], axis=0),
        helper.make_node("ConstantOfShape", [shape], [name], value=value),
    ]


def _stepping(rows: Ports, spec: LoopSpec, inside: Iterable[NodeProto]) -> Around:
    inside = list(inside)
    held = {"encoded": ENCODED, "ids": TOKEN}
    read = {name for node in inside for name in node.input}
    wanted = [port for port in rows.inputs if port.role in (*held, "state") and port.name in read]
    row_of = {held.get(port.role) or str(port.group): port.name for port in wanted}
    before = [_take(pool, row) for pool, row in row_of.items()]
    behind = [_number_lines()]
    after = {str(port.group): port.name for port in rows.outputs if port.role == "state_next"}
    for name, made in after.items():
        if name in row_of and made not in _that_follow(inside, row_of[name]):
            behind += _waiting(row_of[name], made, len(held_lines(spec)[name][1]))
            made = f"{_OWN}{made}"
        behind.append(_put(name, made))
    number, halted, depth = (f"{_OWN}{name}" for name in ("number", "halted", "depth"))
    return before, [
        *behind,
        helper.make_node("Cast", [after["halted"]], [number], to=TensorProto.INT32),
        helper.make_node("Unsqueeze", [number, _AXIS], [halted]),
        helper.make_node("Unsqueeze", [after["depth"], _AXIS], [depth]),
        helper.make_node("Concat", [halted, depth], [SEEN], axis=1),
    ]


def _that_follow(nodes: Iterable[NodeProto], name: str) -> set[str]:
    """The values that are computed of one's values; the nodes stand in an order in which they can run."""
    found = {name}
    for node in nodes:
        if node.op_type != "Shape" and found & set(node.input):
            found |= set(node.output)
    return found


def _waiting(row: str, made: str, dims: int) -> list[NodeProto]:
    """What the step made, as computed of what was read, too: that would be it where a line's number were below 0."""
    below, zero, axes, chosen = (f"{_OWN}{made}, {part}" for part in ("below", "zero", "axes", "chosen"))
    return [
        helper.make_node("Constant", [], [zero], value=numpy_helper.from_array(np.array(0, np.int64))),
        helper.make_node("Less", ["lines", zero], [below]),
        helper.make_node("Constant", [], [axes], value=numpy_helper.from_array(np.arange(1, 1 + dims))),
        helper.make_node("Unsqueeze", [below, axes], [chosen]),
        helper.make_node("Where", [chosen, row, made], [f"{_OWN}{made}"]),
    ]


def _leaving(rows: Ports, spec: LoopSpec, _: Iterable[NodeProto]) -> Around:
    """As `States.answers`: an early answer takes what is left of 1 from the state."""
    answer = rows.of("answer", spec.state[1].name).name
    nodes = [_take(TOKEN, port.name) for port in rows.inputs if port.role == "ids"]
    if spec.exit.spent is None:
        return [*nodes, _take(spec.state[1].name, answer)], []
    names = ("sum", "h", "spent", "halted", "left", "rest", "rests", "more", "all", "runs", "takes", "taken")
    total, h, spent, halted, left, rest, rests, more, whole, runs, takes, taken = (f"{_OWN}{name}" for name in names)
    return [
        *nodes,
        _take(spec.state[1].name, total),
        _take(spec.state[0].name, h),
        _take(spec.exit.spent, spent),
        _take("halted", halted),
        helper.make_node("Sub", [_ONE, spent], [left]),
        helper.make_node("Max", [left, _ZERO], [rest]),
        helper.make_node("Unsqueeze", [rest, _AXIS], [rests]),
        helper.make_node("Mul", [rests, h], [more]),
        helper.make_node("Add", [total, more], [whole]),
        helper.make_node("Not", [halted], [runs]),
        helper.make_node("And", ["early", runs], [takes]),
        helper.make_node("Unsqueeze", [takes, _AXIS], [taken]),
        helper.make_node("Where", [taken, whole, total], [answer]),
    ], []


_AROUND: dict[str, Callable[[Ports, LoopSpec, Iterable[NodeProto]], Around]] = {
    ENTER: _entering,
    STEP: _stepping,
    LEAVE: _leaving,
}
