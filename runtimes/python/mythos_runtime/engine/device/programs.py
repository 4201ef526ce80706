"""rows.pt2, the captured program of the row graphs, cut into enter, step and leave, which write into their caches."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any

from mythos_runtime.device_loop.program import without_taps
from mythos_runtime.engine.device.tail import fuse_tail
from mythos_runtime.errors import BundleError
from mythos_runtime.ports import Port, Ports
from mythos_runtime.row_ports import GRAPHS, ROWS, STEP

_APPENDING = ("paged_gqa_attention", "paged_mla_attention")
"""Operators that return the cache with new entries; NAME_ writes into the cache that it is given."""

_COMPUTED = "computed_"
_MOST_COMPUTED = 4 << 20  # bytes of a tensor that is computed at load


def cut(
    module: Any, graphs: Mapping[str, Ports], also: Mapping[str, list[Any]] | None = None, fused: bool = True
) -> dict[str, Any]:
    """The three graphs of a program's module, by name: callables of the graph's inputs, in their order, that return its
    outputs without the caches, which they write into.

    Args:
        also: nodes of the module whose values a graph returns behind its outputs, for whoever looks inside.
        fused: whether what ends an iteration becomes one operator, where it is known (`tail`).

    Raises:
        BundleError: the program has other ports.
    """
    without_taps(module)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    (output,) = [node for node in module.graph.nodes if node.op == "output"]
    outputs = list(output.args[0])
    known = [sum(len(getattr(graphs[name], side)) for name in GRAPHS) for side in ("inputs", "outputs")]
    if [len(inputs), len(outputs)] != known:
        raise BundleError(
            f"{ROWS} has {len(inputs)} inputs and {len(outputs)} outputs, expected {known[0]} and {known[1]}; export "
            "the model again"
        )
    ports = {node: (name, port) for node, (name, port) in zip(inputs, _named(graphs), strict=True)}
    parts, at = {}, 0
    for name in GRAPHS:
        mine = graphs[name].outputs
        ends = [out for out, port in zip(outputs[at : at + len(mine)], mine, strict=True) if port.role != "cache_next"]
        at += len(mine)
        parts[name] = _part(module, name, ports, [*ends, *(also or {}).get(name, [])])
    if fused:
        fuse_tail(parts[STEP])
    return parts


def _named(graphs: Mapping[str, Ports]) -> Iterator[tuple[str, Port]]:
    return chain.from_iterable(((name, port) for port in graphs[name].inputs) for name in GRAPHS)


def _part(module: Any, name: str, ports: Mapping[Any, tuple[str, Port]], ends: list[Any]) -> Any:
    """The module of what `ends` need; what depends on no input is computed now, unless it is large."""
    torch: Any = importlib.import_module("torch")
    needed = _needed(ends)
    graph, constants = torch.fx.Graph(), _constants(torch, module, needed)
    made: dict[Any, Any] = {}
    for node in (node for node, (owner, _) in ports.items() if owner == name):
        made[node] = graph.placeholder(node.name)
    for node in module.graph.nodes:
        if node not in needed or node in made:
            continue
        if node in constants:
            if not all(user in constants for user in node.users):
                module.register_buffer(f"{_COMPUTED}{node.name}", constants[node], persistent=False)
                made[node] = graph.get_attr(f"{_COMPUTED}{node.name}")
            continue
        of = node.args[0] if node.args else None
        if node.op == "placeholder":
            raise BundleError(f"{ROWS}: {name} reads {ports[node][1].name} of {ports[node][0]}; export the model again")
        if node.target is torch.ops.aten.sym_size.int and ports.get(of, (name, None))[0] != name:
            made[node] = graph.call_function(node.target, _own_size(node, name, ports, made))
        elif _appends(node):
            found = graph.node_copy(node, made.__getitem__)
            found.target = getattr(torch.ops.mythos, f"{_operator(node)}_").default
            made[node] = found
        elif of is not None and _appends(of) and str(node.target) == "<built-in function getitem>":
            made[node] = made[of] if node.args[1] == 0 else made[_cache(of)]
        else:
            made[node] = graph.node_copy(node, made.__getitem__)
    graph.output(tuple(made[end] for end in ends))
    return torch.fx.GraphModule(module, graph)


def _constants(torch: Any, module: Any, needed: set[Any]) -> dict[Any, Any]:
    """The small tensors that depend on nothing but weights, by the nodes that compute them."""
    found: dict[Any, Any] = {}
    weights = {node: node.target for node in module.graph.nodes if node.op == "get_attr"}

    def value(node: Any) -> Any:
        return found[node] if node in found else attrgetter(weights[node])(module)

    for node in module.graph.nodes:
        known = node.op == "call_function" and all(of in found or of in weights for of in node.all_input_nodes)
        if not known or node not in needed:
            continue
        with torch.no_grad():
            result = node.target(*torch.fx.map_arg(node.args, value), **torch.fx.map_arg(node.kwargs, value))
        if isinstance(result, torch.Tensor) and result.nbytes <= _MOST_COMPUTED:
            found[node] = result.detach()
    return found


def _needed(ends: list[Any]) -> set[Any]:
    """What these nodes are computed from, and they; of a size not the tensor that it is of."""
    needed: set[Any] = set()
    left = list(ends)
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            if "sym_size" not in str(node.target):
                left += node.all_input_nodes
    return needed


def _own_size(node: Any, name: str, ports: Mapping[Any, tuple[str, Port]], made: Mapping[Any, Any]) -> tuple[Any, int]:
    """The arguments with which this graph finds the size of a tensor that only another one has: of its own input with
    that dimension."""
    symbol = ports[node.args[0]][1].dims[node.args[1]]
    for own, (owner, port) in ports.items():
        if owner == name and symbol in port.dims:
            return made[own], port.dims.index(symbol)
    raise BundleError(f"{ROWS}: {name} needs the size {symbol}, which none of its inputs has; export the model again")


def _operator(node: Any) -> str:
    return str(node.target).removeprefix("mythos.").removesuffix(".default")


def _appends(node: Any) -> bool:
    return getattr(node, "op", None) == "call_function" and _operator(node) in _APPENDING


def _cache(node: Any) -> Any:
    """The cache that a call appends to."""
    names = [argument.name for argument in node.target._schema.arguments]
    return node.kwargs["cache"] if "cache" in node.kwargs else node.args[names.index("cache")]
