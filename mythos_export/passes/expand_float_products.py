"""Write float32 matrix products as Mul + ReduceSum: TensorRT-RTX has no float32 matrix product on SM 75.

In a float16 graph the only such product is the router's, which stays in float32 because a near tie changes an expert.
It is small: tokens x experts x dim.
"""

from __future__ import annotations

import onnx_ir as ir


def expand_float_products(model: ir.Model) -> None:
    """a [..., D] x b [D, E] -> ReduceSum(a [..., 1, D] * b^T [E, D]), for every MatMul that is known to be float32."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != "MatMul" or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.FLOAT:
            continue
        left, right = node.inputs
        if right is None or right.shape is None or len(right.shape) != 2 or node.graph is None:
            continue
        before_last = ir.node("Constant", [], {"value_ints": [-2]})
        last = ir.node("Constant", [], {"value_ints": [-1]})
        row = ir.node("Unsqueeze", [left, before_last.outputs[0]])
        columns = ir.node("Transpose", [right], {"perm": [1, 0]})
        products = ir.node("Mul", [row.outputs[0], columns.outputs[0]])
        total = ir.node("ReduceSum", [products.outputs[0], last.outputs[0]], {"keepdims": 0})
        replaced, result = node.outputs[0], total.outputs[0]
        result.shape, result.type = replaced.shape, replaced.type
        parts = {"before_last": before_last, "last": last, "row": row, "columns": columns, "products": products}
        for part, made in (parts | {"sum": total}).items():  # names that the graph around the loop does not have
            made.outputs[0].name = f"{replaced.name}_{part}"
        node.graph.insert_before(node, [before_last, last, row, columns, products, total])
        ir.convenience.replace_all_uses_with(replaced, result)
        node.graph.remove(node, safe=True)
