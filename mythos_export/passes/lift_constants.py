"""Constants become initializers of the graph around the loop: an iteration computes nothing that never changes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, LiftSubgraphInitializersToMainGraphPass


def lift_constants(model: ir.Model) -> None:
    """Also those of the loop's body, which sees the graph around it."""
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    LiftSubgraphInitializersToMainGraphPass()(model)
