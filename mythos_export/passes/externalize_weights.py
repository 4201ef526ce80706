"""Point the graph into the safetensors files that hold its weights, by offset.

The model's weights are in one file before there is a graph (`weights_file`), and an initializer is looked up there by
its address. What else a graph holds, computed of weights or of nothing, goes into a file of its own.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from safetensors import safe_open

from mythos_export.tensor_file import write_tensors
from mythos_export.weights_file import INLINE_BYTES, WeightsFile


def link_weights(models: Iterable[ir.Model], weights: WeightsFile, own: Path, computed: Path | None = None) -> None:
    """Replace every initializer above INLINE_BYTES by a reference into a file.

    It is one of the model's weights, in whose place comes an input where it is linked (`mythos_export.linked`); or in
    `computed`, another graph's `own`, under its name and with its values; or it goes into `own`, each once. There is no
    such file where there are none.
    """
    known = tensor_offsets(computed) if computed is not None and computed.exists() else {}
    kept: dict[str, torch.Tensor] = {}
    later: list[tuple[ir.Value, str]] = []
    for number, model in enumerate(models):
        for name, value in large_initializers(model).items():
            if isinstance(value.const_value, ir.ExternalTensor):
                continue  # `share_products` has found it
            linked = weights.linked_name(array_of(value.const_value))
            if linked is not None:
                make_input(model.graph, value, linked)
                continue
            place = weights.place(array_of(value.const_value))
            if place is not None:
                point(value, weights.path, place)
                continue
            tensor = to_torch(value.const_value)
            if computed is not None and name in known and _equal(_read(computed, name), tensor):
                point(value, computed, known[name])
                continue
            if name in kept and not _equal(kept[name], tensor):
                name = f"{name}.{number}"
            kept[name] = tensor
            later.append((value, name))
    if kept:
        offsets = write_tensors(own, kept)
        for value, name in later:
            point(value, own, offsets[name])


def make_input(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """An initializer becomes an input of this name, one for all that are."""
    del graph.initializers[str(value.name)]
    known = next((each for each in graph.inputs if each.name == name), None)
    if known is not None:
        ir.convenience.replace_all_uses_with(value, known)
        return
    tensor = value.const_value
    assert tensor is not None
    value.name, value.const_value = name, None
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    graph.inputs.append(value)


def large_initializers(model: ir.Model) -> dict[str, ir.Value]:
    """Those that do not stay in the graph."""
    return {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
    }


def point(value: ir.Value, path: Path, place: tuple[int, int]) -> None:
    """Replace a value's tensor by a reference into a file, from byte to byte."""
    tensor = value.const_value
    assert tensor is not None
    value.const_value = reference(value.name or "", path, place, tensor.dtype, ir.Shape(tensor.shape.numpy()))


def reference(name: str, path: Path, place: tuple[int, int], dtype: ir.DataType, shape: ir.Shape) -> ir.ExternalTensor:
    """A tensor that is in a file."""
    return ir.ExternalTensor(
        path.name, place[0], place[1] - place[0], dtype, shape=shape, name=name, base_dir=path.parent
    )


def array_of(tensor: ir.TensorProtocol | None) -> torch.Tensor | np.ndarray:
    """A tensor's values where they are, nothing copied."""
    assert tensor is not None
    raw = tensor.raw if hasattr(tensor, "raw") else None
    return raw.detach() if isinstance(raw, torch.Tensor) else tensor.numpy()


def to_torch(tensor: ir.TensorProtocol | None) -> torch.Tensor:
    """A tensor's values, bfloat16 as such."""
    array = array_of(tensor)
    if isinstance(array, torch.Tensor):
        return array.contiguous()
    if tensor is not None and tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(array.view("uint16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def tensor_offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Begin and end of every tensor of a safetensors file, in bytes from the start of the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    base = 8 + length
    return {
        name: (base + entry["data_offsets"][0], base + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)  # type: ignore[no-any-return]


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
