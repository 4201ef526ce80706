"""Move the weights into one safetensors file, and point the graph into it by offset."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import torch

from mythos_export.tensor_file import write_tensors

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
    offsets = write_tensors(path, tensors)
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
