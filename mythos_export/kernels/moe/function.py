"""mythos::moe as an ONNX function, in two forms.

`sparse` runs every expert over the tokens that chose it (NonZero); it is the fastest portable form in ONNX Runtime.
`dense` runs every expert over every token and weighs the unchosen by zero: TensorRT has no runner for NonZero. Of
rounded weights, every call makes all experts in float32.
"""

from __future__ import annotations

import onnx

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.formats import inputs_of, rounded_activations, unpack
from mythos_export.kernels.text import parse_function
from mythos_model.formats import FORMATS, PLAIN

WEIGHTS = "routed_gate_up, routed_down, shared_gate_up, shared_down"
INPUTS = f"x, expert_index, expert_weight, {WEIGHTS}"
SCALES = "routed_gate_up_scale, routed_down_scale, shared_gate_up_scale, shared_down_scale"


def _swiglu(result: str, x: str, gate_up: str, down: str, axis: int, form: str = PLAIN) -> str:
    """Lines for result = down(silu(gate x) * up x); weights are [in, out] here."""
    hidden, before, between = f"{result}_hidden", "", ""
    if FORMATS[form].activations:
        before, x = rounded_activations(f"{result}_x", x, form), f"{result}_x"
        between, hidden = rounded_activations(f"{result}_seen", hidden, form), f"{result}_seen"
    return f"""
  {before}
  {result}_both = MatMul ({x}, {gate_up})
  {result}_gate, {result}_up = Split <axis = {axis}, num_outputs = 2> ({result}_both)
  {result}_sigmoid = Sigmoid ({result}_gate)
  {result}_silu = Mul ({result}_gate, {result}_sigmoid)
  {result}_hidden = Mul ({result}_silu, {result}_up)
  {between}
  {result} = MatMul ({hidden}, {down})
"""


def _shared(has_shared: bool, form: str = PLAIN) -> str:
    """Lines for the result, in the shape of x."""
    back = "  x_shape = Shape (x)\n  out = Reshape <allowzero = 1> (y_rows, x_shape)\n"
    if not has_shared:
        return "  y_rows = Identity (routed)\n" + back
    return f"""
  {_swiglu("shared", "rows_x", "shared_gate_up_t", "shared_down_t", 1, form)}
  y_rows = Add (routed, shared)
{back}"""


# x [..., D] and the routing [..., K] as rows [n, .].
_PROLOGUE = """
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  zero_scalar = Constant <value_int = 0> ()
  one_scalar = Constant <value_int = 1> ()
  minus_one = Constant <value_ints = [-1]> ()
  width = Shape <start = -1> (x)
  chosen = Shape <start = -1> (expert_index)
  width_rows = Concat <axis = 0> (minus_one, width)
  chosen_rows = Concat <axis = 0> (minus_one, chosen)
  rows_x = Reshape (x, width_rows)
  rows_index = Reshape (expert_index, chosen_rows)
  rows_weight = Reshape (expert_weight, chosen_rows)
"""


def _unpacked(name: str, form: str) -> str:
    """Lines for NAME_t [E, inputs, rows] (shared experts: [inputs, rows]) without the padding that x and y do not have;
    how wide the experts are is what gate and up, in whole tiles, say."""
    kind, part = name.split("_", 1)
    width = f"{kind}_width"
    sizes = f"  {name}_sizes = Concat <axis = 0> ({width}, width)\n"
    if part == "gate_up":
        sizes = f"""
  {kind}_rows = Shape <start = -1> ({name}_padded)
  {width} = Div ({kind}_rows, two)
  {name}_sizes = Concat <axis = 0> (width, {kind}_rows)
"""
    return f"""{unpack(f"{name}_padded", name, f"{name}_scale", form, leading=int(kind == "routed"))}
{sizes}
  {name}_t = Slice ({name}_padded, origin, {name}_sizes, last_two)
"""


def _weights(form: str, has_shared: bool) -> str:
    """Lines for the shared experts' NAME_t and, of rounded weights, all others'."""
    routed, shared = WEIGHTS.split(", ")[:2], WEIGHTS.split(", ")[2:] if has_shared else []
    if form == PLAIN:
        return "".join(f"  {name}_t = Transpose <perm = [1, 0]> ({name})\n" for name in shared)
    constants = "  origin = Constant <value_ints = [0, 0]> ()\n  last_two = Constant <value_ints = [-2, -1]> ()\n"
    return constants + "".join(_unpacked(name, form) for name in (*routed, *shared))


def _expert(e: int, form: str) -> str:
    """Lines for gate_up_tE and down_tE, one expert's matrices [inputs, rows]."""
    if form != PLAIN:
        return f"""
  gate_up_t{e} = Gather <axis = 0> (routed_gate_up_t, e{e})
  down_t{e} = Gather <axis = 0> (routed_down_t, e{e})
"""
    return f"""
  gate_up{e} = Gather <axis = 0> (routed_gate_up, e{e})
  gate_up_t{e} = Transpose <perm = [1, 0]> (gate_up{e})
  down{e} = Gather <axis = 0> (routed_down, e{e})
  down_t{e} = Transpose <perm = [1, 0]> (down{e})
"""


def sparse(call: OperatorCall) -> onnx.FunctionProto:
    """One SwiGLU per expert over the tokens that chose it; rows are put back by one ScatterND, in a fixed order."""
    experts, has_shared = call.size("routed_down", 0), call.size("shared_gate_up", 0) > 0
    lines = [_PROLOGUE, _weights(call.format, has_shared)]
    for e in range(experts):
        lines.append(f"""
  e{e} = Constant <value_int = {e}> ()
  hit{e} = Equal (rows_index, e{e})
  where{e} = NonZero (hit{e})
  token{e} = Gather <axis = 0> (where{e}, zero_scalar)
  slot{e} = Gather <axis = 0> (where{e}, one_scalar)
  token_row{e} = Mul (token{e}, chosen)
  row{e} = Add (token_row{e}, slot{e})
  x{e} = Gather <axis = 0> (rows_x, token{e})
  {_expert(e, call.format)}
  {_swiglu(f"y{e}", f"x{e}", f"gate_up_t{e}", f"down_t{e}", 1, call.format)}""")
    names = range(experts)
    lines.append(f"""
  rows_1d = Concat <axis = 0> ({", ".join(f"row{e}" for e in names)})
  values = Concat <axis = 0> ({", ".join(f"y{e}" for e in names)})
  rows = Unsqueeze (rows_1d, one)
  values_shape = Shape (values)
  scattered = ScatterND (values, rows, values)
  tokens_chosen = Shape (rows_index)
  by_slot_shape = Concat <axis = 0> (tokens_chosen, width)
  by_slot = Reshape (scattered, by_slot_shape)
  slot_weight = Unsqueeze (rows_weight, two)
  weighted = Mul (by_slot, slot_weight)
  routed = ReduceSum <keepdims = 0> (weighted, one)
""")
    body = "".join(lines) + _shared(has_shared, call.format)
    return parse_function("moe", inputs_of(INPUTS, SCALES, call.format), body, "format")


def dense(call: OperatorCall) -> onnx.FunctionProto:
    """All experts over all tokens as batched matrix products [E, n, .], weighted by the scattered routing weights."""
    experts, has_shared = call.size("routed_down", 0), call.size("shared_gate_up", 0) > 0
    body = f"""{_PROLOGUE}
  {_weights(call.format, has_shared)}
  expert_ids = Constant <value_ints = [{", ".join(map(str, range(experts)))}]> ()
  index_3d = Unsqueeze (rows_index, two)
  weight_3d = Unsqueeze (rows_weight, two)
  hit = Equal (index_3d, expert_ids)
  hit_value = CastLike (hit, expert_weight)
  hit_weight = Mul (hit_value, weight_3d)
  dense_weight = ReduceSum <keepdims = 0> (hit_weight, one)
  dense_weight_t = Transpose <perm = [1, 0]> (dense_weight)
  dense_weight_3d = Unsqueeze (dense_weight_t, two)
  gate_up_t = Transpose <perm = [0, 2, 1]> (routed_gate_up)
  down_t = Transpose <perm = [0, 2, 1]> (routed_down)
  x_3d = Unsqueeze (rows_x, zero)
  {_swiglu("y", "x_3d", "gate_up_t", "down_t", 2)}
  y_weighted = Mul (y, dense_weight_3d)
  routed = ReduceSum <keepdims = 0> (y_weighted, zero)
"""
    return parse_function("moe", INPUTS, body + _shared(has_shared), "format")
