"""A parsed INetworkDefinition as plain records, in an order in which it can be computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from mythos_export.verify.tensorrt_network.layers import LOOP_CLASSES, MAKERS, Compute, UnknownLayer


@dataclass(frozen=True)
class Layer:
    """A layer that computes: its type, input names (None: absent) and output names with numpy dtypes."""

    name: str
    kind: str
    inputs: tuple[str | None, ...]
    outputs: tuple[tuple[str, np.dtype], ...]
    compute: Compute


@dataclass(frozen=True)
class LoopOutput:
    """What a loop gives out: the last value of `source`, or (`stack`) its values of all iterations along `axis`."""

    name: str
    source: str
    stack: bool
    reverse: bool
    axis: int


@dataclass
class Loop:
    """A loop: `state` maps a recurrence's output to its first and its next value; `condition` and `count` limit it."""

    name: str
    state: dict[str, tuple[str, str]] = field(default_factory=dict)
    outputs: list[LoopOutput] = field(default_factory=list)
    condition: str | None = None
    count: str | None = None
    iterators: dict[str, tuple[str, int]] = field(default_factory=dict)
    body: list[Layer] = field(default_factory=list)

    @property
    def needs(self) -> list[str]:
        """Names that have to be known before it starts, its body's own apart."""
        limits = [name for name in (self.condition, self.count) if name is not None]
        return [*(first for first, _ in self.state.values()), *(x for x, _ in self.iterators.values()), *limits]


@dataclass(frozen=True)
class Network:
    """Everything to run it: ports, and the steps around the loop in order."""

    inputs: Mapping[str, np.dtype]
    outputs: tuple[str, ...]
    steps: tuple[Layer | Loop, ...]
    kinds: Mapping[str, int]
    """Layer types and how many there are of each."""

    @property
    def layers(self) -> list[Layer]:
        """Around the loop, and in it, where there is one."""
        return [layer for step in self.steps for layer in (step.body if isinstance(step, Loop) else [step])]


def read(network: Any, trt: ModuleType) -> Network:
    """Read all layers.

    Raises:
        UnknownLayer: a layer type, or a mode of one, that the interpreter does not know; or a loop in a loop.
    """
    types, kinds = _dtypes(trt), dict[str, int]()
    layers: list[Layer] = []
    loops: dict[str, Loop] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = str(layer.type).rpartition(".")[2]
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind in LOOP_CLASSES:
            layer.__class__ = getattr(trt, LOOP_CLASSES[kind])
            _add_to_loop(loops.setdefault(layer.loop.name, Loop(layer.loop.name)), kind, layer, trt)
        elif kind in MAKERS:
            class_name, make = MAKERS[kind]
            layer.__class__ = getattr(trt, class_name)
            outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
            named = tuple((tensor.name, types[tensor.dtype]) for tensor in outputs)
            layers.append(Layer(layer.name, kind, _inputs(layer), named, make(layer, trt)))
        else:
            raise UnknownLayer(f"{layer.name}: the interpreter knows no layer of type {kind}")
    ins = [network.get_input(k) for k in range(network.num_inputs)]
    outs = tuple(network.get_output(k).name for k in range(network.num_outputs))
    inputs = {tensor.name: types[tensor.dtype] for tensor in ins}
    return Network(inputs, outs, _order(layers, list(loops.values()), inputs, outs), kinds)


def _inputs(layer: Any) -> tuple[str | None, ...]:
    tensors = [layer.get_input(k) for k in range(layer.num_inputs)]
    return tuple(tensor.name if tensor is not None else None for tensor in tensors)


def _add_to_loop(loop: Loop, kind: str, layer: Any, trt: ModuleType) -> None:
    inputs = [name for name in _inputs(layer) if name is not None]
    if kind == "RECURRENCE":
        loop.state[layer.get_output(0).name] = (inputs[0], inputs[1])
    elif kind == "ITERATOR":
        loop.iterators[layer.get_output(0).name] = (inputs[0], layer.axis)
    elif kind == "TRIP_LIMIT" and layer.kind == trt.TripLimit.COUNT:
        loop.count = inputs[0]
    elif kind == "TRIP_LIMIT":
        loop.condition = inputs[0]
    else:
        stack = layer.kind != trt.LoopOutput.LAST_VALUE
        reverse = layer.kind == trt.LoopOutput.REVERSE
        loop.outputs.append(LoopOutput(layer.get_output(0).name, inputs[0], stack, reverse, layer.axis))


def _order(
    layers: list[Layer], loops: list[Loop], inputs: Iterable[str], outputs: Iterable[str]
) -> tuple[Layer | Loop, ...]:
    """Layers that depend on a loop's state go into its body, the others around it; each after what it reads."""
    producers = {name: layer for layer in layers for name, _ in layer.outputs}
    owner: dict[str, str | None] = dict.fromkeys(inputs)
    for loop in loops:
        owner |= dict.fromkeys((*loop.state, *loop.iterators), loop.name)
        owner |= dict.fromkeys(output.name for output in loop.outputs)
    sorted_layers = _sorted(layers, producers)
    for layer in sorted_layers:
        owners = {owner[name] for name in layer.inputs if name is not None} - {None}
        if len(owners) > 1:
            raise UnknownLayer(f"{layer.name}: it depends on two loops; the interpreter knows no loop in a loop")
        owner |= dict.fromkeys((name for name, _ in layer.outputs), next(iter(owners), None))
    for loop in loops:
        loop.body = [layer for layer in sorted_layers if owner[layer.outputs[0][0]] == loop.name]
        for name, _ in loop.state.values():
            if owner[name] is not None:
                raise UnknownLayer(f"loop {loop.name} starts from inside another; the interpreter knows no such thing")
    outside = [layer for layer in sorted_layers if owner[layer.outputs[0][0]] is None]
    return tuple(_place_loops(outside, loops))


def _sorted(layers: list[Layer], producers: Mapping[str, Layer]) -> list[Layer]:
    """A stable topological order. The parser nearly writes one, but a body may read what is built later."""
    done: set[int] = set()
    order: list[Layer] = []
    for start in layers:
        stack = [(start, False)]
        while stack:
            layer, ready = stack.pop()
            if id(layer) in done:
                continue
            if ready:
                done.add(id(layer))
                order.append(layer)
                continue
            stack.append((layer, True))
            before = [producers[name] for name in layer.inputs if name is not None and name in producers]
            stack += [(producer, False) for producer in reversed(before) if id(producer) not in done]
    return order


def _place_loops(outside: list[Layer], loops: list[Loop]) -> list[Layer | Loop]:
    """Around the loops in order: what a loop reads, the loop, what reads its outputs."""
    after: set[str] = {output.name for loop in loops for output in loop.outputs}
    late: list[Layer | Loop] = []
    early: list[Layer | Loop] = []
    for layer in outside:
        hangs = any(name in after for name in layer.inputs)
        (late if hangs else early).append(layer)
        if hangs:
            after |= {name for name, _ in layer.outputs}
    for loop in loops:
        if any(name in after for name in loop.needs):
            raise UnknownLayer(f"loop {loop.name} reads another loop's result; the interpreter knows one loop only")
    return [*early, *loops, *late]


def _dtypes(trt: ModuleType) -> dict[Any, np.dtype]:
    types: dict[Any, np.dtype] = {
        trt.float32: np.dtype(np.float32),
        trt.float16: np.dtype(np.float16),
        trt.int32: np.dtype(np.int32),
        trt.int64: np.dtype(np.int64),
        trt.bool: np.dtype(np.bool_),
        trt.int8: np.dtype(np.int8),
        trt.uint8: np.dtype(np.uint8),
    }
    try:
        import ml_dtypes
    except ImportError:
        return types
    return types | {trt.bfloat16: np.dtype(ml_dtypes.bfloat16)}
