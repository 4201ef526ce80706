"""Remove what the tracer noted on every node: stack traces with paths of the machine that exports, and module names."""

from __future__ import annotations

import onnx_ir as ir


def drop_metadata(model: ir.Model) -> None:
    """Of every graph, the loop's body included, with its nodes and values."""
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
