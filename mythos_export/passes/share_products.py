"""Products over rows take their weights as the whole model's graph stores them.

torch.onnx makes Gemm(x, W, transB = 1) of a product with rows [R, D], and MatMul(x, W^T) of one with [B, T, D]; W^T is
what is in the file of weights. Left so, the row graphs would bring nearly every matrix a second time.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from mythos_export.passes.externalize_weights import array_of, reference
from mythos_export.weights_file import INLINE_BYTES, WeightsFile


def share_products(models: Iterable[ir.Model], weights: WeightsFile) -> None:
    """Give each Gemm whose matrix is transposed in the file of weights the one that is there."""
    for model in models:
        for node in model.graph:
            weight = _transposed(node)
            if weight is None or weight.const_value is None:
                continue
            array = array_of(weight.const_value).T
            place = weights.place(array)
            if place is None:
                continue
            initializers = model.graph.initializers
            own = f"{weight.name}_transposed"
            twin = initializers.get(own)
            if twin is None:
                shape = ir.Shape(array.shape)
                stored = reference(own, weights.path, place, weight.const_value.dtype, shape)
                twin = ir.Value(name=own, type=weight.type, shape=shape, const_value=stored)
                initializers.add(twin)
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
