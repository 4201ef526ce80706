"""A graph's weights as references into the checkpoint's own files, and the nodes that make the model's tensors of them.

    compositions = Compositions(family, config, places)  # which of the checkpoint's tensors each of the model's is
    refer(graph, compositions, folder)                   # initializers -> external data in those files

A checkpoint has one tensor per expert, and the model one of all: such are put together in the graph (Concat), and cast
where the file's dtype is another. What a family changes otherwise on the way in cannot be referred to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from mythos_export.errors import LowerError
from mythos_model.checkpoint.reduced import Corners
from mythos_model.checkpoint.stored import Tensors
from mythos_model.families.family import Family

_DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
}


@dataclass(frozen=True)
class Place:
    """Where a tensor of the checkpoint is, or is to be: from byte `start` of a file on, its elements one by one."""

    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def places_of(state: Mapping[str, torch.Tensor]) -> dict[str, Place]:
    """Of those tensors of a checkpoint that are whole and in order in its files; or of a reduced one, the first rows of
    such, whole."""
    if isinstance(state, Corners):
        whole = places_of(state.state)
        cut = {name: (whole[name], shape) for name, shape in state.shapes.items() if name in whole}
        return {
            name: replace(place, shape=shape) for name, (place, shape) in cut.items() if place.shape[1:] == shape[1:]
        }
    assert isinstance(state, Tensors)
    found = {}
    for name, stored in state.stored.items():
        place = stored.place
        if place is not None:
            found[name] = Place(place[0].resolve(), place[1], stored.dtype, stored.shape)
    return found


@dataclass(frozen=True)
class Composition:
    """The checkpoint's tensors that are, put together along `axis` and seen in another shape, one of the model's."""

    names: tuple[str, ...]
    axis: int = 0


class _Names(Mapping[str, Any]):
    """A state of tensors that are only followed: what is done to them becomes nodes of a graph."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self._names = names
        self._tracer = fx.proxy.GraphAppendingTracer(fx.Graph())

    def __getitem__(self, name: str) -> fx.Proxy:
        return self._tracer.create_proxy("placeholder", "tensor", (), {}, name=None, type_expr=name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Compositions(Mapping[str, Composition]):
    """Of every tensor of a family's model, by its name.

    Raises:
        LowerError: asked for one that is made of the checkpoint's in another way.
    """

    def __init__(self, family: Family, config: Any, places: Mapping[str, Place]) -> None:
        self.family, self.places = family, places
        self._sources = family.model.sources(config, _Names(family.shapes(config)))

    def __getitem__(self, name: str) -> Composition:
        try:
            made = list(self._sources.pieces(name))
        except (fx.proxy.TraceError, TypeError, AttributeError) as error:  # it asks a tensor for more than its place
            raise self._refused(name) from error
        pieces = [self._followed(name, piece) for piece in made]
        axes = {piece.axis for piece in pieces if len(piece.names) > 1}
        if len(pieces) > 1 and axes - {0}:
            raise self._refused(name)
        return Composition(tuple(each for piece in pieces for each in piece.names), max(axes, default=0))

    def __contains__(self, name: object) -> bool:
        return name in self._sources  # not whether it can be referred to

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def _followed(self, name: str, made: Any) -> Composition:
        node: Any = made.node if isinstance(made, fx.Proxy) else None
        if node is not None and node.op == "placeholder":
            return Composition((str(node.type),))
        if node is not None and node.target is torch.cat:
            parts, axis = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            if all(part.op == "placeholder" for part in parts):
                return Composition(tuple(str(part.type) for part in parts), axis)
        raise self._refused(name)

    def _refused(self, name: str) -> LowerError:
        return LowerError(
            f"{name} of {self.family.name} is not in the checkpoint's files as the model has it, so nothing can "
            "refer to it there; export a bundle that has it, without --graph-only"
        )


def refer(model: ir.Model, compositions: Compositions, folder: Path) -> dict[str, Place]:
    """Make every weight of a graph a reference, relative to `folder`; returns what is referred to, by name.

    Raises:
        LowerError: a weight is not in the checkpoint as the model has it.
    """
    graph, referred = model.graph, dict[str, Place]()
    for name in [name for name in graph.initializers if name in compositions]:
        value = graph.initializers[name]
        if value.const_value is not None and not value.const_value.size:
            continue  # of experts that the model does not have: in no file
        graph.initializers.pop(name)
        composition = compositions[name]
        stored = []
        for each in composition.names:
            place = referred[each] = compositions.places[each]
            external = each if len(composition.names) > 1 else f"{name}.stored"
            stored.append(graph.initializers.setdefault(external, _reference(external, place, folder)))
        for node in reversed(_nodes(value, stored, composition.axis)):
            graph.insert_before(graph[0], node)
    return referred


def _reference(name: str, place: Place, folder: Path) -> ir.Value:
    if place.dtype not in _DTYPES:
        raise LowerError(f"{name} is {place.dtype} in {place.file}; fp32, fp16 and bf16 can be referred to")
    dtype, shape = _DTYPES[place.dtype], ir.Shape(place.shape)
    location = os.path.relpath(place.file, folder)
    tensor = ir.ExternalTensor(location, place.start, place.bytes, dtype, shape=shape, name=name, base_dir=folder)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)


def _nodes(value: ir.Value, stored: Sequence[ir.Value], axis: int) -> list[ir.Node]:
    """What makes `value` of tensors in files."""
    tensor = value.const_value
    assert tensor is not None and value.name is not None
    shape = [int(size) for size in tensor.shape.numpy()]
    value.const_value = None
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(shape)
    shapes = [list(each.shape.numpy()) for each in stored if each.shape is not None]
    joined = shapes[0][:axis] + [sum(each[axis] for each in shapes)] + shapes[0][axis + 1 :]
    steps: list[tuple[str, dict[str, Any]]] = []
    if len(stored) > 1:
        steps.append(("Concat", {"axis": axis}))
    if stored[0].dtype != tensor.dtype:
        steps.append(("Cast", {"to": int(tensor.dtype)}))
    if joined != shape:
        steps.append(("Reshape", {}))
    nodes: list[ir.Node] = []
    inputs = list(stored)
    for number, (kind, attributes) in enumerate(steps or [("Identity", {})]):
        if kind == "Reshape":
            target = ir.node("Constant", [], {"value_ints": shape})
            target.outputs[0].name = f"{value.name}.shape"
            nodes.append(target)
            inputs = [*inputs, target.outputs[0]]
        last = number == max(len(steps), 1) - 1
        output = value if last else ir.Value(name=f"{value.name}.{kind.lower()}")
        attrs = [ir.AttrInt64(key, each) for key, each in attributes.items()]
        nodes.append(ir.Node("", kind, inputs, attrs, outputs=[output]))
        inputs = [output]
    return nodes
