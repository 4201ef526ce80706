"""Products over rows take their weights as the whole model's graph stores them.

torch.onnx makes Gemm(x, W, transB = 1) of a product with rows [R, D], and MatMul(x, W^T), with W^T stored, of one with
[B, T, D]. Left so, the row graphs would bring nearly every matrix a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors import safe_open

from mythos_export.passes.externalize_weights import INLINE_BYTES, point, tensor_offsets, to_torch


def share_products(models: Iterable[ir.Model], shared: Path) -> None:
    """Give each Gemm whose matrix lies transposed in the safetensors file `shared` the one that lies there."""
    products = [
        (model, node, weight)
        for model in models
        for node in model.graph
        if (weight := _transposed(node)) is not None and weight.const_value is not None
    ]
    if not products:
        return
    offsets = tensor_offsets(shared)
    with safe_open(shared, framework="pt") as file:
        names = [name for name in file.keys() if len(file.get_slice(name).get_shape()) == 2]  # noqa: SIM118
        stored = {_hash(file.get_tensor(name)): name for name in names}
    for model, node, weight in products:
        tensor = to_torch(weight.const_value).T.contiguous()
        name = stored.get(_hash(tensor))
        if name is None:
            continue
        initializers = model.graph.initializers
        own = f"{weight.name}_transposed"
        twin = initializers.get(own)
        if twin is None:
            twin = ir.Value(name=own, type=weight.type, shape=ir.Shape(tensor.shape), const_value=ir.tensor(tensor))
            initializers.add(twin)
            point(twin, shared, offsets[name])
        node.replace_input_with(1, twin)
        node.attributes["transB"] = ir.AttrInt64("transB", 0)
        if not weight.uses():
            del initializers[str(weight.name)]


def _transposed(node: ir.Node) -> ir.Value | None:
    """The large matrix that a Gemm takes transposed."""
    if node.op_type != "Gemm" or node.domain or "transB" not in node.attributes:
        return None
    weight = node.inputs[1]
    if node.attributes["transB"].as_int() != 1 or weight is None or not weight.is_initializer():
        return None
    return weight if weight.const_value is not None and weight.const_value.nbytes > INLINE_BYTES else None


def _hash(tensor: torch.Tensor) -> tuple[tuple[int, ...], str, bytes]:
    digest = hashlib.blake2b(tensor.contiguous().view(torch.uint8).numpy().data, digest_size=32).digest()
    return tuple(tensor.shape), str(tensor.dtype), digest
