"""Name the dynamic dimensions of the ports: batch, tokens, past, loops, rows, in place of the tracer's symbols."""

from __future__ import annotations

import onnx_ir as ir

from mythos_runtime.ports import Ports

NAMES = {"B": "batch", "T": "tokens", "P": "past", "N": "loops"}
NAMES |= {"R": "rows", "S": "spans", "K": "blocks", "G": "pages", "W": "wanted"}


def name_dimensions(model: ir.Model, ports: Ports) -> None:
    """Rename on the ports; forget the shapes inside, which speak in the old symbols and are inferred again."""
    for value, port in zip((*model.graph.inputs, *model.graph.outputs), (*ports.inputs, *ports.outputs), strict=True):
        value.shape = ir.Shape([dim if isinstance(dim, int) else NAMES[dim] for dim in port.dims])
    named = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.shape is None or id(value) in named:
                continue
            value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
