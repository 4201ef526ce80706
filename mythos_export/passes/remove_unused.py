"""Remove nodes and initializers whose results nobody reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mythos_model import MythosConfig


def remove_unused(model: ir.Model, config: MythosConfig) -> None:
    """Also in the loop's body."""
    RemoveUnusedNodesPass()(model)
