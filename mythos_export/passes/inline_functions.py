"""Expand every model-local function into the graphs that call it."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from mythos_export.kernels.text import DOMAIN


def inline_functions(model: ir.Model) -> None:
    """For parsers that take an unknown domain for a plugin; what has no function stays a node."""
    InlinePass()(model)
    model.functions.clear()
    model.opset_imports.pop(DOMAIN, None)
