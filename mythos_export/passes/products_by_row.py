"""Products of the row graphs with weights that are in files outside of the bundle, so that a row's bits are its own.

ONNX Runtime packs a matrix that it holds, and multiplies every row by it in one order of sums. By one that comes as
an input it multiplies in an order that depends on how many rows there are. So a Gemm becomes `mythos::linear`, whose
kernel has one order; what a MatMul takes as it is (a small one: the adapters of the loops) is copied into the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from mythos_export.errors import LowerError
from mythos_export.kernels.text import DOMAIN
from mythos_export.passes.attach_functions import attach_functions
from mythos_export.passes.externalize_weights import array_of
from mythos_export.weights_file import WeightsFile
from mythos_model.formats import PLAIN

MOST_COPIED = 64 << 20  # bytes of a matrix that is copied


def products_by_row(models: Iterable[ir.Model], weights: WeightsFile) -> None:
    """Rewrite the products with linked weights. Raises LowerError where a large one takes its matrix as it is."""
    for model in models:
        for node in list(model.graph):
            if node.domain or node.op_type not in ("Gemm", "MatMul"):
                continue
            weight = node.inputs[1]
            if (
                weight is None
                or weight.const_value is None
                or weights.linked_name(array_of(weight.const_value)) is None
            ):
                continue
            if node.op_type == "Gemm" and _is_linear(node):
                _make_linear(model.graph, node, weight)
            else:
                _copy(weight)
        attach_functions(model)


def _is_linear(node: ir.Node) -> bool:
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    scaled = given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0
    return given.get("transB", 0) == 1 and not given.get("transA", 0) and not scaled


def _make_linear(graph: ir.Graph, node: ir.Node, weight: ir.Value) -> None:
    """x . weight^T, and what is added to it."""
    assert weight.shape is not None
    rows = weight.shape.numpy()[0]
    made = ir.node("linear", [node.inputs[0], weight], {"rows": rows, "format": PLAIN}, domain=DOMAIN)
    result, bias, nodes = made.outputs[0], node.inputs[2] if len(node.inputs) > 2 else None, [made]
    if bias is not None:
        nodes.append(ir.node("Add", [result, bias]))
    before, after = node.outputs[0], nodes[-1].outputs[0]
    if bias is not None:
        result.name, result.type, result.shape = f"{before.name}/product", before.type, before.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [before], [after])


def _copy(weight: ir.Value) -> None:
    """The same values at another address, which no file is known to have."""
    tensor = weight.const_value
    assert tensor is not None
    if tensor.nbytes > MOST_COPIED:
        raise LowerError(f"{weight.name} is linked, {tensor.nbytes} bytes large, and taken as no linear layer takes it")
    weight.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=weight.name)
