"""Remove nodes and initializers whose results nobody reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def remove_unused(model: ir.Model) -> None:
    """Also in the loop's body."""
    RemoveUnusedNodesPass()(model)
