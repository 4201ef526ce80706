"""Move the weights into one safetensors file, and point the graph into it by offset."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors.torch import save_file

INLINE_BYTES = 1024  # smaller tensors stay in the graph: constants that shape inference wants to see


def externalize_weights(model: ir.Model, path: Path) -> None:
    """Write every initializer above INLINE_BYTES to `path` and replace it by a reference into the file.

    The file is an ordinary safetensors file, so that other graphs, other runtimes and people can read it as well.
    """
    values = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > INLINE_BYTES
    }
    tensors = {name: _to_torch(value.const_value) for name, value in values.items() if value.const_value is not None}
    save_file(tensors, path)
    offsets = tensor_offsets(path)
    for name, value in values.items():
        tensor = value.const_value
        assert tensor is not None
        start, end = offsets[name]
        value.const_value = ir.ExternalTensor(
            path.name,
            start,
            end - start,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=path.parent,
        )


def _to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
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
