"""Name the dynamic dimensions of the ports: batch, tokens, past, loops, in place of the tracer's symbols."""

from __future__ import annotations

import onnx_ir as ir

PORT_DIMENSIONS: dict[str, tuple[str | None, ...]] = {
    "input_ids": ("batch", "tokens"),
    "positions": ("batch", "tokens"),
    "past_lengths": ("batch",),
    "past_layers": (None, "batch", "past", None),
    "past_loop": ("loops", "batch", "past", None),
    "logits": ("batch", "tokens", None),
    "depth": ("batch", "tokens"),
    "new_layers": (None, "batch", "tokens", None),
    "new_loop": ("loops", "batch", "tokens", None),
}


def name_dimensions(model: ir.Model) -> None:
    """Rename on the ports; forget the shapes inside, which speak in the old symbols and are inferred again."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        names = PORT_DIMENSIONS.get(value.name or "")
        if names is not None and value.shape is not None:
            dims = [name if name is not None else dim for name, dim in zip(names, value.shape, strict=True)]
            value.shape = ir.Shape(dims)
    ports = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.shape is None or id(value) in ports:
                continue
            value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
