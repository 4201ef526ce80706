"""`loops.onnx`: the step in an ONNX Loop, made of `step.onnx`, for engines whose rows stay together for several loops.

    what computes the same in every loop, once
    Loop:  this loop's tables and knobs, then the step's nodes as they are; again, unless a row stops it

The attentions over pages lose their second output, the cache: a Loop would carry a copy of every page. So they write
into the pages that they are given, as this project's own operators do; a portable body cannot say that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from mythos_export.errors import LowerError
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import LOOPS, LOOPS_FILE, PER_LOOP, loop_ports

_PAGED = "paged_"  # what the operators over pages begin with
_INSIDE = "loop/"  # in front of a name of the step that means something else outside of the Loop
_INDEX, _ONE, _NONE, _RAN = (f"{LOOPS}/{name}" for name in ("index", "one", "none", "ran"))


def write_loops(step: Path, ports: Ports) -> Path:
    """Write the step in a Loop beside `step`, whose ports these are, on the same weights.

    Raises:
        LowerError: a value of the step has the name of a port that is new.
    """
    path = step.with_name(LOOPS_FILE)
    onnx.save(_in_loop(onnx.load(step, load_external_data=False), ports), path)
    return path


def _in_loop(model: onnx.ModelProto, ports: Ports) -> onnx.ModelProto:
    graph, wanted = model.graph, loop_ports(ports)
    _refuse_twice(graph)
    values = {value.name: value for value in (*graph.input, *graph.output)}
    pairs = {port.group: port.name for port in ports.inputs if port.role == "state"}
    carried = {pairs[port.group]: port.name for port in ports.outputs if port.role == "state_next"}
    knobs = {port.name: port.role for port in ports.inputs if port.role in (*PER_LOOP, "loop")}
    inside = {name: _INSIDE + name for name in (*carried, *carried.values(), *knobs)}

    once, again = _parted([_renamed(node, inside) for node in graph.node], set(inside.values()))
    halted = next(port.name for port in ports.outputs if port.role == "state_next" and port.group == "halted")
    goes_on, asks = _unless_stopped(inside[halted])
    body = helper.make_graph(
        [
            *(_of_this_loop(name, role, inside[name]) for name, role in knobs.items()),
            *again,
            *asks,
            helper.make_node("Add", [_INDEX, _ONE], [_RAN]),
        ],
        "loop",
        [
            _scalar(_INDEX),
            _scalar(f"{LOOPS}/goes", TensorProto.BOOL),
            *(_called(inside[name], values[name]) for name in carried),
            _scalar(f"{LOOPS}/ran_before"),
        ],
        [
            _scalar(goes_on, TensorProto.BOOL),
            *(_called(inside[name], values[name]) for name in carried.values()),
            _scalar(_RAN),
        ],
    )
    loop = helper.make_node("Loop", ["loops", "", *carried, _NONE], [*carried.values(), "ran"], body=body)
    new = {"loops": _scalar("loops"), "ran": _scalar("ran"), "stops": _called("stops", values[halted])}
    new |= {name: _by_loop(values[name]) for name, role in knobs.items() if role in PER_LOOP}
    described = values | new
    known = {port.name for port in ports.inputs}
    linked = [value for value in graph.input if value.name not in known]  # weights in files outside of the bundle
    outer = helper.make_graph(
        [*once, loop],
        LOOPS,
        [*(described[port.name] for port in wanted.inputs), *linked],
        [described[port.name] for port in wanted.outputs],
        [
            *graph.initializer,
            *(helper.make_tensor(name, TensorProto.INT64, [], [n]) for n, name in ((0, _NONE), (1, _ONE))),
        ],
    )
    functions = [function for function in model.functions if not function.name.startswith(_PAGED)]
    return helper.make_model(outer, opset_imports=model.opset_import, ir_version=model.ir_version, functions=functions)


def _refuse_twice(graph: onnx.GraphProto) -> None:
    there = {value.name for value in (*graph.input, *graph.initializer)}
    there |= {name for node in graph.node for name in node.output}
    twice = sorted(there & {"loops", "stops", "ran"})
    if twice:
        raise LowerError(f"a value of the step is called {twice[0]}, as a port of the step in a Loop is")


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A node of the step as it is inside the Loop, where an attention returns no cache."""
    made = NodeProto()
    made.CopyFrom(node)
    for side in (made.input, made.output):
        for index, name in enumerate(side):
            side[index] = names.get(name, name)
    if made.op_type.startswith(_PAGED):
        del made.output[1:]
    return made


def _parted(nodes: Iterable[NodeProto], changing: set[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """Those that compute the same in every loop, and the others: those that read what changes, or a cache."""
    once, again = [], []
    for node in nodes:
        if node.op_type.startswith(_PAGED) or changing & set(node.input):
            again.append(node)
            changing |= set(node.output)
        else:
            once.append(node)
    return once, again


def _of_this_loop(name: str, role: str, inside: str) -> NodeProto:
    """What a port says of the loop that runs: its own line or, of the rows' depth, as many more as loops have run."""
    if role in PER_LOOP:
        return helper.make_node("Gather", [name, _INDEX], [inside], axis=0)
    return helper.make_node("Add", [name, _INDEX], [inside])


def _unless_stopped(halted: str) -> tuple[str, list[NodeProto]]:
    """Whether none of the rows has halted that stop the Loop then."""
    names = [f"{LOOPS}/{name}" for name in ("stopped", "stopped_number", "any_number", "any", "goes_on")]
    return names[-1], [
        helper.make_node("And", ["stops", halted], [names[0]]),
        helper.make_node("Cast", [names[0]], [names[1]], to=TensorProto.INT32),
        helper.make_node("ReduceMax", [names[1]], [names[2]], keepdims=0),
        helper.make_node("Cast", [names[2]], [names[3]], to=TensorProto.BOOL),
        helper.make_node("Not", [names[3]], [names[4]]),
    ]


def _scalar(name: str, element: int = TensorProto.INT64) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, [])


def _called(name: str, value: ValueInfoProto) -> ValueInfoProto:
    made = ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    return made


def _by_loop(value: ValueInfoProto) -> ValueInfoProto:
    """With an axis of loops in front."""
    dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, [f"{LOOPS}_of_call", *dims])
