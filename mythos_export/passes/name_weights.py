"""Weights carry the model's own names, without the wrapper's prefix."""

from __future__ import annotations

import onnx_ir as ir


def name_weights(model: ir.Model) -> None:
    """model.prelude.0... -> prelude.0..."""
    for name in [name for name in model.graph.initializers if name.startswith("model.")]:
        value = model.graph.initializers.pop(name)
        value.name = name.removeprefix("model.")
        if value.const_value is not None:
            value.const_value.name = value.name
        model.graph.initializers[value.name] = value
