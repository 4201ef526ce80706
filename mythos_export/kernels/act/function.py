"""mythos::act_halting as an ONNX function; TensorRT builds the same."""

from __future__ import annotations

import onnx

from mythos_export.kernels.text import parse_function

INPUTS = "h, out, cumulative, halted, depth, weight, bias, threshold"
OUTPUTS = "p, out_next, cumulative_next, halted_next, depth_next, running"

# The sigmoid is written out: ONNX Runtime's own flushes its tail to zero, and these small values are summed.
_BODY = """
  last_axis = Constant <value_ints = [-1]> ()
  zero = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  weighed = Mul (h, weight)
  summed = ReduceSum <keepdims = 0> (weighed, last_axis)
  logit = Add (summed, bias)
  negated = Neg (logit)
  exponential = Exp (negated)
  denominator = Add (exponential, one)
  p = Reciprocal (denominator)
  runs = Not (halted)
  run = Cast <to = 1> (runs)
  left = Sub (one, cumulative)
  remainder = Max (left, zero)
  reached = Add (cumulative, p)
  is_last = GreaterOrEqual (reached, threshold)
  share = Where (is_last, remainder, p)
  share_run = Mul (run, share)
  share_3d = Unsqueeze (share_run, last_axis)
  contribution = Mul (share_3d, h)
  out_next = Add (out, contribution)
  step = Cast <to = 6> (runs)
  depth_next = Add (depth, step)
  p_run = Mul (p, run)
  cumulative_next = Add (cumulative, p_run)
  done = GreaterOrEqual (cumulative_next, threshold)
  halted_next = Or (halted, done)
  halted_number = Cast <to = 6> (halted_next)
  least = ReduceMin <keepdims = 0> (halted_number)
  all_halted = Cast <to = 9> (least)
  running = Not (all_halted)
"""


def function() -> onnx.FunctionProto:
    """The function body."""
    return parse_function("act_halting", INPUTS, _BODY, outputs=OUTPUTS)
