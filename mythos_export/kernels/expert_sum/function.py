"""mythos::expert_sum as an ONNX function. It adds in any order: moe's bits are the CPU kernel's."""

from __future__ import annotations

import onnx

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.text import parse_function

INPUTS = "parts, expert_index, expert_weight, shared"


def function(call: OperatorCall) -> onnx.FunctionProto:
    """The function body; without shared experts nothing is added."""
    has_shared = call.shapes.get("shared") != (0,)
    last = "out = Add (routed, shared)" if has_shared else "out = Identity (routed)"
    body = f"""
  last = Constant <value_ints = [-1]> ()
  last_but_one = Constant <value_ints = [-2]> ()
  weight = Unsqueeze (expert_weight, last)
  weighted = Mul (parts, weight)
  routed = ReduceSum <keepdims = 0> (weighted, last_but_one)
  {last}
"""
    return parse_function("expert_sum", INPUTS, body)
