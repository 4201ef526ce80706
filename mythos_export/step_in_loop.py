"""`loops.onnx`: the step in an ONNX Loop, made of `step.onnx`, for engines whose rows stay together for several loops.

    what computes the same in every loop, once
    Loop:  this loop's tables and knobs, then the step's nodes as they are; again, unless a row stops it

In place of the attentions over pages stand those that write into the pages that they are given (`paged_mla_attention_`
and so on, the names that they have in PyTorch), for a Loop would carry a copy of every page. They are operators of this
project's library alone: no portable body can say that. What a table is in which loop is said by the number of a row's
span, so that no table is copied.

A row that has halted runs on because later positions read its cache entries. In its last loop nobody reads more of it
than those, so that what stands behind the last entry is not computed then: by the operators that can leave rows out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Several
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from mythos_export.errors import LowerError
from mythos_export.kernels.text import DOMAIN
from mythos_model.formats import FORMATS
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import LOOPS, LOOPS_FILE, PER_LOOP, loop_ports

_PAGED = "paged_"  # what the operators over pages begin with
_INSIDE = "loop/"  # in front of a name of the step that means something else outside of the Loop
_OWN = f"{LOOPS}/"  # in front of what is added
_INDEX, _ZERO, _RAN, _GOES_ON = (f"{_OWN}{name}" for name in ("index", "zero", "ran", "goes_on"))
_REAL, _AHEAD, _SPAN_NEXT = (f"{_OWN}{name}" for name in ("real", "ahead", "span_next"))
_SPARING = {f"{_PAGED}mla_attention": 8, f"{_PAGED}gqa_attention": 6, "moe": 11}
"""Operators that leave rows out whose result nobody reads, and how many inputs stand before those that tell which."""
_NEW = ("loops", "spans", "stops", "ran")  # ports that the step has none of


def write_loops(step: Path, ports: Ports) -> Path | None:
    """Write the step in a Loop beside `step`, whose ports these are, on the same weights.

    Not of one that computes in float16: on the CPU ONNX Runtime computes runs of its nodes in float32, and where it
    cuts them, and rounds, is otherwise in a Loop. Calls of one loop and of several would give other bits.

    Raises:
        LowerError: the step holds what cannot be put into one.
    """
    if any(port.dtype == "float16" for port in ports.inputs):
        return None
    path = step.with_name(LOOPS_FILE)
    onnx.save(_in_loop(onnx.load(step, load_external_data=False), ports), path)
    return path


def _in_loop(model: onnx.ModelProto, ports: Ports) -> onnx.ModelProto:
    graph, wanted = model.graph, loop_ports(ports)
    _check(graph, {port.name for port in ports.outputs if port.role == "cache_next"})
    values = {value.name: value for value in (*graph.input, *graph.output)}
    before = {port.group: port.name for port in ports.inputs if port.role == "state"}
    carried = {before[port.group]: port.name for port in ports.outputs if port.role == "state_next"}
    halted = next(port.name for port in ports.outputs if port.role == "state_next" and port.group == "halted")
    span = ports.of("span").name
    loop_of, *told = (ports.of(role).name for role in ("loop", *PER_LOOP) if ports.has(role))
    inside = {name: _INSIDE + name for name in (*carried, *carried.values(), loop_of, *told, span)}

    nodes = list(graph.node)
    if len(told) == len(PER_LOOP):
        nodes = _sparing(nodes, [before["halted"], *told])
    once, again = _parted([_renamed(node, inside) for node in nodes], set(inside.values()))
    of_this_loop = [inside[loop_of], _SPAN_NEXT, *(inside[name] for name in told)]
    body = helper.make_graph(
        [
            _own("loop_knobs", [_INDEX, loop_of, inside[span], _AHEAD, *told], of_this_loop),
            *again,
            _own("loop_goes_on", [_INDEX, "stops", inside[halted]], [_GOES_ON, _RAN]),
        ],
        "loop",
        [
            _scalar(_INDEX),
            _scalar(f"{_OWN}goes", TensorProto.BOOL),
            *(_called(inside[name], values[name]) for name in (*carried, span)),
            _scalar(f"{_OWN}ran_before"),
        ],
        [
            _scalar(_GOES_ON, TensorProto.BOOL),
            *(_called(inside[name], values[name]) for name in carried.values()),
            _called(_SPAN_NEXT, values[span]),
            _scalar(_RAN),
        ],
    )
    given, results = (*carried, span, _ZERO), (*carried.values(), f"{_OWN}span_last", "ran")
    tables = [  # a row's tables stand as far apart as a loop has spans; padding has none
        helper.make_node("GreaterOrEqual", [span, _ZERO], [_REAL]),
        helper.make_node("Where", [_REAL, "spans", _ZERO], [_AHEAD]),
    ]
    loop = helper.make_node("Loop", ["loops", "", *given], results, body=body)
    described = values | {name: _scalar(name) for name in _NEW} | {"stops": _called("stops", values[halted])}
    described |= {name: _by_loop(values[name]) for name in told}
    known = {port.name for port in ports.inputs}
    linked = [value for value in graph.input if value.name not in known]  # weights in files outside of the bundle
    outer = helper.make_graph(
        [*once, *tables, loop],
        LOOPS,
        [*(described[port.name] for port in wanted.inputs), *linked],
        [described[port.name] for port in wanted.outputs],
        [*graph.initializer, helper.make_tensor(_ZERO, TensorProto.INT64, [], [0])],
    )
    ours = _SPARING.keys() - _portable(nodes)
    functions = [function for function in model.functions if function.name not in ours]
    return helper.make_model(outer, opset_imports=model.opset_import, ir_version=model.ir_version, functions=functions)


def _check(graph: onnx.GraphProto, caches: set[str]) -> None:
    """Raises LowerError where a name is taken, a node has a graph of its own, whose names nobody looks at here, or a
    cache is read after it was written."""
    names = {value.name for value in (*graph.input, *graph.initializer)}
    names |= {name for node in graph.node for name in node.output}
    taken = sorted(name for name in names if name in _NEW or name.startswith((_INSIDE, _OWN)))
    if taken:
        raise LowerError(f"a value of the step is called {taken[0]}, as one of the step in a Loop is")
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise LowerError(f"the step holds {node.op_type}, a node with a graph of its own, in a Loop")
        if caches & set(node.input):
            raise LowerError(f"{node.op_type} reads a cache that the step has written, which a Loop does not return")


def _sparing(nodes: Iterable[NodeProto], told: Several[str]) -> list[NodeProto]:
    """The step's nodes, in their order, where those that no later cache entry depends on are told which rows have
    halted and are in their last loop; what the operators make of it is said at `Idle` of cpu/ort_tensors.h."""
    nodes, made = list(nodes), list[NodeProto]()
    portable = _portable(nodes)
    needed: set[str] = set()  # by what is appended to a cache
    for node in reversed(nodes):
        own = NodeProto()
        own.CopyFrom(node)
        before = None if node.op_type in portable else _SPARING.get(node.op_type)
        if before is not None and not needed & set(node.output):
            own.input.extend([*[""] * (before - len(node.input)), *told])
        if node.op_type.startswith(_PAGED) or needed & set(node.output):
            needed |= set(node.input)
        made.append(own)
    return made[::-1]


def _portable(nodes: Iterable[NodeProto]) -> set[str]:
    """Operators that portable bodies compute, at one node or more: over weights that the library has no kernels for."""
    formats = {(node.op_type, each.s.decode()) for node in nodes for each in node.attribute if each.name == "format"}
    return {operator for operator, form in formats if not FORMATS[form].native}


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A node of the step as it is inside the Loop, where an attention writes into the pages that it is given."""
    made = NodeProto()
    made.CopyFrom(node)
    for side in (made.input, made.output):
        for index, name in enumerate(side):
            side[index] = names.get(name, name)
    if made.op_type.startswith(_PAGED):
        made.op_type += "_"
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


def _own(operator: str, inputs: list[str], outputs: list[str]) -> NodeProto:
    """One of the operators that only this graph has (cpu/loop_ops.h)."""
    return helper.make_node(operator, inputs, outputs, domain=DOMAIN)


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
