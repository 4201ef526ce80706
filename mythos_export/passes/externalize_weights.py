"""Move the weights into one safetensors file, and point the graph into it by offset."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors import safe_open

from mythos_export.tensor_file import write_tensors

INLINE_BYTES = 1024  # smaller tensors stay in the graph: constants that shape inference wants to see


def externalize_weights(model: ir.Model, path: Path) -> None:
    """Write every initializer above INLINE_BYTES to `path` and replace it by a reference into the file.

    The file is an ordinary safetensors file, so that other graphs, other runtimes and people can read it as well.
    """
    values = _large(model)
    offsets = write_tensors(path, {name: to_torch(value.const_value) for name, value in values.items()})
    for name, value in values.items():
        point(value, path, offsets[name])


def link_weights(models: Iterable[ir.Model], shared: Path, own: Path) -> None:
    """Point the initializers of further graphs into `shared`, which `externalize_weights` has written.

    A tensor is shared if it has the name and the values of one there. The others go into `own`, each once; there is no
    such file where there are none.
    """
    offsets = tensor_offsets(shared)
    kept: dict[str, torch.Tensor] = {}
    later: list[tuple[ir.Value, str]] = []
    with safe_open(shared, framework="pt") as file:
        for number, model in enumerate(models):
            for name, value in _large(model).items():
                if isinstance(value.const_value, ir.ExternalTensor) and value.const_value.path == str(shared):
                    continue  # `share_products` has found it there
                tensor = to_torch(value.const_value)
                if name in offsets and _equal(file.get_tensor(name), tensor):
                    point(value, shared, offsets[name])
                    continue
                if name in kept and not _equal(kept[name], tensor):
                    name = f"{name}.{number}"
                kept[name] = tensor
                later.append((value, name))
    if kept:
        offsets = write_tensors(own, kept)
        for value, name in later:
            point(value, own, offsets[name])


def _large(model: ir.Model) -> dict[str, ir.Value]:
    return {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
    }


def point(value: ir.Value, path: Path, place: tuple[int, int]) -> None:
    """Replace a value's tensor by a reference into a file, from byte to byte."""
    tensor = value.const_value
    assert tensor is not None
    value.const_value = ir.ExternalTensor(
        path.name,
        place[0],
        place[1] - place[0],
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        base_dir=path.parent,
    )


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)


def to_torch(tensor: ir.TensorProtocol | None) -> torch.Tensor:
    """A tensor's values, bfloat16 as such."""
    assert tensor is not None
    raw = tensor.raw if hasattr(tensor, "raw") else None
    if isinstance(raw, torch.Tensor):
        return raw.detach().contiguous()
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.BFLOAT16:
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
