"""Several graphs that were converted as one become models of their own; they have no value in common."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def split_graphs(model: ir.Model, names: Iterable[str]) -> dict[str, ir.Model]:
    """The graph of every name: what is between the ports NAME/..., which lose the prefix."""
    split = {}
    for name in names:
        inputs, outputs = (
            [value for value in side if (value.name or "").startswith(f"{name}/")]
            for side in (model.graph.inputs, model.graph.outputs)
        )
        graph = ir.convenience.extract(model.graph, inputs, outputs)
        graph.name = name
        for value in (*graph.inputs, *graph.outputs):
            value.name = (value.name or "").removeprefix(f"{name}/")
        made = ir.Model(graph, ir_version=model.ir_version)
        made.opset_imports.update(model.opset_imports)
        used = {node.op_identifier() for node in graph.all_nodes()}
        made.functions.update({key: function for key, function in model.functions.items() if key in used})
        split[name] = made
    return split
