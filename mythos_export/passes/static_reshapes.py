"""Give every Reshape a constant shape: 0 for a dimension that stays, -1 for the one that is left.

torch.onnx computes the target from the sizes of other tensors, several nodes for one Reshape.
"""

from __future__ import annotations

import onnx_ir as ir


def static_reshapes(model: ir.Model) -> None:
    """Rewrite each Reshape whose shapes tell the target; runs while values still carry the tracer's symbols."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Reshape" and node.domain == "" and node.graph is not None:
            target = _target(node.inputs[0], node.outputs[0])
            if target is not None:
                shape = ir.node("Constant", [], {"value_ints": target})
                shape.outputs[0].name = f"{node.outputs[0].name}_shape"
                shape.outputs[0].dtype, shape.outputs[0].shape = ir.DataType.INT64, ir.Shape([len(target)])
                node.graph.insert_before(node, [shape])
                node.replace_input_with(1, shape.outputs[0])
                node.attributes.pop("allowzero", None)


def _target(source: ir.Value | None, result: ir.Value) -> list[int] | None:
    if source is None or source.shape is None or result.shape is None:
        return None
    target: list[int] = []
    for index, dim in enumerate(result.shape):
        if isinstance(dim, int) and dim > 0:
            target.append(dim)
        elif index < len(source.shape) and str(source.shape[index]) == str(dim) and dim != 0:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None
