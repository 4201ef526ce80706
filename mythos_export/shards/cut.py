"""The graph of the step, cut at its experts (`mythos_runtime.shards.entry` says what the pieces are)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mythos_export.errors import LowerError, TargetError
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import DOMAIN, OPSET, VERSION
from mythos_export.passes.attach_functions import attach_functions
from mythos_export.passes.name_dimensions import NAMES
from mythos_model import LoopedModel
from mythos_model.moe import MixtureOfExperts
from mythos_runtime.ports import Port, Ports
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.shards.entry import EXPERTS, REST, ROUTE, SHARED, ExpertShards, expert_ports, shared_ports

_MOE = OPERATORS["moe"]
_DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.INT64: "int64",
    ir.DataType.INT32: "int32",
    ir.DataType.BOOL: "bool",
}
_TYPES = {name: dtype for dtype, name in _DTYPES.items()}


@dataclass(frozen=True)
class Cut:
    """The pieces: the trunk's graphs by name, and one for every shard."""

    entry: ExpertShards
    trunk: dict[str, ir.Model]
    shards: tuple[ir.Model, ...]


def deal(experts: int, shards: int) -> tuple[int, ...]:
    """How many experts each shard gets: neighbours, as evenly as it goes. Raises TargetError."""
    if not 1 <= shards <= experts:
        raise TargetError(f"--expert-shards {shards}: the model has {experts} experts, so there can be 1 to {experts}")
    return tuple(experts // shards + (index < experts % shards) for index in range(shards))


def check_shards(model: LoopedModel, shards: int) -> None:
    """Refuse a model that cannot be cut at its experts so often, before any long work. Raises TargetError."""
    found = [module for module in model.modules() if isinstance(module, MixtureOfExperts)]
    if len(found) != 1:
        raise TargetError(
            f"--expert-shards cuts a loop at its mixture of experts; this model has {len(found) or 'none'} of them"
        )
    if not set(GRAPHS) <= set(model.spec.graphs):
        raise TargetError(
            f"--expert-shards cuts the row graphs, which there are none of with the exit rule {model.exit.rule().name}"
        )
    deal(found[0].router.out_features, shards)


def cut(step: ir.Model, ports: Ports, shards: int) -> Cut:
    """The step's graph, of these ports, in pieces; of a model that `check_shards` has looked at. It is used up.

    Raises:
        LowerError: more goes from one piece to the other than rows.
    """
    (node,) = (node for node in step.graph if node.domain == DOMAIN and node.op_type == "moe")
    inputs = dict(zip((*_MOE.inputs,), (*node.inputs, *[None] * len(_MOE.scales)), strict=False))
    experts, dim = _shape(inputs["routed_down"])[0], _shape(inputs["x"])[-1]
    counts = deal(experts, shards)
    pieces = tuple(
        _experts(node, inputs, range(sum(counts[:index]), sum(counts[: index + 1])), dim) for index in range(shards)
    )
    trunk, graphs = {}, {EXPERTS: expert_ports(dim)}
    if _shape(inputs["shared_gate_up"])[0]:
        graphs[SHARED] = shared_ports(dim, str(getattr(inputs["x"], "name", None)))
        trunk[SHARED] = _shared(node, inputs, graphs[SHARED])
    halves, halves_ports = _halves(step, ports, node, SHARED in trunk)
    return Cut(ExpertShards(counts, graphs | halves_ports), halves | trunk, pieces)


def _shape(value: ir.Value | None) -> list[int]:
    assert value is not None and value.shape is not None
    return [dim if isinstance(dim, int) else -1 for dim in value.shape]


# -- the two halves of the trunk --------------------------------------------------------------------------------------


def _halves(
    step: ir.Model, ports: Ports, node: ir.Node, has_shared: bool
) -> tuple[dict[str, ir.Model], dict[str, Ports]]:
    graph, known = step.graph, {port.name: port for port in (*ports.inputs, *ports.outputs)}
    gives = [value for value in node.inputs[:3] if value is not None]
    caches = [value for value in graph.outputs if known[str(value.name)].role == "cache_next"]
    before = set(_behind([*gives, *caches]))
    after = [each for each in graph if each not in before and each is not node]
    passed = {value for each in after for value in each.inputs if value is not None and value.producer() in before}
    early = [value for value in graph.outputs if value.producer() in before and value not in caches]
    x, index, weight = gives
    roles = {x: "x", index: "expert_index", weight: "expert_weight"}
    crossing = [x, index, weight, *sorted(passed - set(gives), key=lambda value: str(value.name))]
    between = {value: _port(value, roles.get(value, "between")) for value in crossing}

    (width,), (chosen,) = _shape(x)[1:], _shape(index)[1:]
    parts = _value(Port("parts", "float32", ("R", chosen, width), "parts"))
    shared = _value(shared_ports(width).outputs[0]) if has_shared else ir.Value(name="no_shared_experts")
    if not has_shared:
        shared.const_value = ir.tensor(np.zeros(0, np.float32), name=shared.name)
        shared.type, shared.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([0])
    summed = ir.node("expert_sum", [parts, index, weight, shared], domain=DOMAIN, name="expert_sum")
    put_out = node.outputs[0]
    summed.outputs[0].name, summed.outputs[0].type, summed.outputs[0].shape = put_out.name, put_out.type, put_out.shape

    used_early = _inputs_of(before, graph)
    late_inputs = [value for value in graph.inputs if _reads(after, value) or value not in used_early]
    late_outputs = [value for value in graph.outputs if value not in (*caches, *early)]
    route = _model(step, ROUTE, used_early, [*crossing, *early, *caches])
    graph.inputs.extend([parts, shared] if has_shared else [parts])
    if not has_shared:
        graph.initializers.add(shared)
    graph.insert_before(node, summed)
    ir.convenience.replace_all_uses_with(put_out, summed.outputs[0])
    graph.remove(node, safe=True)
    given = [parts, index, weight, *([shared] if has_shared else [])]
    others = [value for value in crossing if value in passed and value not in (index, weight)]
    rest = _model(step, REST, [*late_inputs, *given, *others], late_outputs)

    def own(values: Iterable[ir.Value]) -> tuple[Port, ...]:
        return tuple(known[str(value.name)] for value in values)

    first = Ports(own(used_early), (*(between[value] for value in crossing), *own([*early, *caches])))
    given_ports = [Port("parts", "float32", ("R", chosen, width), "parts"), between[index], between[weight]]
    given_ports += [shared_ports(width).outputs[0]] if has_shared else []
    second = Ports((*own(late_inputs), *given_ports, *(between[value] for value in others)), own(late_outputs))
    return {ROUTE: route, REST: rest}, {ROUTE: first, REST: second}


def _behind(values: Sequence[ir.Value]) -> Iterator[ir.Node]:
    """The nodes that these values depend on."""
    seen: set[ir.Node] = set()
    left = [value.producer() for value in values]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            left += [value.producer() for value in node.inputs if value is not None]


def _inputs_of(nodes: set[ir.Node], graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.inputs if _reads(nodes, value)]


def _reads(nodes: Iterable[ir.Node], value: ir.Value) -> bool:
    return any(value in node.inputs for node in nodes)


def _port(value: ir.Value, role: str) -> Port:
    """Of a value that goes from one half to the other: rows of it."""
    if value.shape is None or not value.shape.rank() or value.dtype not in _DTYPES:
        raise LowerError(f"the step cannot be cut at its experts: the rest of it reads {value.name}, which is not rows")
    dims = _shape(value)
    if -1 in dims[1:] or dims[0] != -1:
        raise LowerError(
            f"the step cannot be cut at its experts: the rest of it reads {value.name} {list(value.shape)}"
        )
    return Port(str(value.name), _DTYPES[value.dtype], ("R", *dims[1:]), role)


def _model(step: ir.Model, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The part of the step between these values."""
    graph = ir.convenience.extract(step.graph, inputs, outputs)
    graph.name = name
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and value.shape.rank() and not isinstance(value.shape[0], int):
            rows = NAMES["R"] if value.shape[0] == ir.SymbolicDim(None) else value.shape[0]
            value.shape = ir.Shape([rows, *list(value.shape)[1:]])
    return _with_functions(graph, step.ir_version)


# -- the experts ------------------------------------------------------------------------------------------------------


def _experts(node: ir.Node, inputs: dict[str, ir.Value | None], which: range, dim: int) -> ir.Model:
    """The graph of a shard: its experts, each as the one choice of a row with a weight of 1."""
    graph = _Graph(EXPERTS, expert_ports(dim))
    x, row, expert = graph.inputs
    rows = graph.add("Gather", [x, row], {"axis": 0})
    weights = {name: _slice(value, which) for name, value in inputs.items() if name.startswith("routed") and value}
    return graph.finish(_apart(graph, node, rows, expert, weights | _none(inputs)))


def _shared(node: ir.Node, inputs: dict[str, ir.Value | None], ports: Ports) -> ir.Model:
    """The shared experts, as a mixture of one."""
    graph = _Graph(SHARED, ports)
    (x,) = graph.inputs
    first = graph.add("Gather", [graph.add("Shape", [x]), graph.constant("zero", 0)], {"axis": 0})
    rows = graph.add("Unsqueeze", [first, graph.constant("axis", [0])])
    zeros = graph.add("ConstantOfShape", [rows], {"value": ir.tensor(np.zeros(1, np.int64))})
    weights = {
        name.replace("shared", "routed"): _one(value)
        for name, value in inputs.items()
        if name.startswith("shared") and value
    }
    return graph.finish(_apart(graph, node, x, zeros, weights | _none(inputs)))


def _apart(graph: _Graph, node: ir.Node, x: ir.Value, expert: ir.Value, weights: dict[str, ir.Value]) -> ir.Value:
    """moe of rows that choose one expert each, which counts 1."""
    index = graph.add("Unsqueeze", [expert, graph.constant("last", [-1])])
    shape = graph.add("Shape", [index])
    ones = graph.add("ConstantOfShape", [shape], {"value": ir.tensor(np.ones(1, np.float32))})
    for value in weights.values():
        graph.initializers.append(value)
    given = [x, index, ones, *(weights[name] for name in _MOE.inputs[3:] if name in weights)]
    return graph.add("moe", given, dict(node.attributes), DOMAIN)


def _slice(value: ir.Value, which: range) -> ir.Value:
    """Some of the experts; the name says which, for verification."""
    tensor = value.const_value
    assert tensor is not None
    return _constant(f"{value.name}[{which.start}:{which.stop}]", tensor.numpy()[which.start : which.stop])


def _one(value: ir.Value) -> ir.Value:
    tensor = value.const_value
    assert tensor is not None
    return _constant(str(value.name), tensor.numpy()[None])


def _none(inputs: dict[str, ir.Value | None]) -> dict[str, ir.Value]:
    """Shared experts of no width: of gate and up no rows, of down no inputs."""
    found = {}
    for name, value in inputs.items():
        if name.startswith("shared") and value is not None and value.const_value is not None:
            array = value.const_value.numpy()
            found[name] = _constant(f"no_{name}", array[:0] if "gate_up" in name else array[:, :0])
    return found


def _constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def _value(port: Port) -> ir.Value:
    dims = [dim if isinstance(dim, int) else NAMES[dim] for dim in port.dims]
    return ir.Value(name=port.name, shape=ir.Shape(dims), type=ir.TensorType(_TYPES[port.dtype]))


class _Graph:
    """A graph while it is made."""

    def __init__(self, name: str, ports: Ports) -> None:
        self.name = name
        self.inputs, self._outputs = [_value(port) for port in ports.inputs], [_value(port) for port in ports.outputs]
        self.initializers: list[ir.Value] = []
        self._nodes: list[ir.Node] = []

    def constant(self, name: str, value: int | list[int]) -> ir.Value:
        self.initializers.append(_constant(name, np.array(value, np.int64)))
        return self.initializers[-1]

    def add(self, op: str, inputs: Sequence[ir.Value], attributes: dict | None = None, domain: str = "") -> ir.Value:  # type: ignore[type-arg]
        node = ir.node(op, inputs, attributes or {}, domain=domain, name=f"{op}_{len(self._nodes)}")
        node.outputs[0].name = f"{op}_{len(self._nodes)}"
        self._nodes.append(node)
        return node.outputs[0]

    def finish(self, result: ir.Value) -> ir.Model:
        (output,) = self._outputs
        result.name, result.type, result.shape = output.name, output.type, output.shape
        graph = ir.Graph(self.inputs, [result], nodes=self._nodes, initializers=self.initializers, name=self.name)
        return _with_functions(graph)


def _with_functions(graph: ir.Graph, version: int = 10) -> ir.Model:
    graph.opset_imports.update({"": OPSET, DOMAIN: VERSION})
    model = ir.Model(graph, ir_version=version)
    attach_functions(model)
    return model
