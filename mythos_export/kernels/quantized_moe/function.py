"""int8_moe and int4_moe as ONNX functions: every call makes all experts in float32, and goes on as `moe`."""

from __future__ import annotations

import onnx

from mythos_export.kernels.blockwise import dequantize
from mythos_export.kernels.moe import function as moe
from mythos_export.kernels.text import parse_function

WEIGHTS = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")
INPUTS = "x, expert_index, expert_weight, " + ", ".join(f"{name}, {name}_scale" for name in WEIGHTS)


def function(experts: int, has_shared: bool, int4: bool) -> onnx.FunctionProto:
    """For int8 or int4 weights, in the form of `moe.sparse`, whose weights lie [rows, inputs]."""
    used = WEIGHTS if has_shared else WEIGHTS[:2]
    lines = ["  model_dim = Shape <start = -1> (x)\n  tile_rows = Constant <value_ints = [16]> ()\n"]
    lines.append("  two_long = Constant <value_ints = [2]> ()\n  origin = Constant <value_ints = [0, 0]> ()\n")
    lines.append("  last_two = Constant <value_ints = [-2, -1]> ()\n")
    for name in used:
        lines.append(_plain(name, int4))
    body = "".join(lines) + moe.sparse_body(experts, has_shared, {name: f"{name}_plain" for name in used})
    return parse_function("int4_moe" if int4 else "int8_moe", INPUTS, body)


def _plain(name: str, int4: bool) -> str:
    """Lines for NAME_plain [E, rows, inputs] (or [rows, inputs]), without the padding that x and y do not have."""
    kind, part = name.split("_", 1)
    routed = kind == "routed"
    perm = "[0, 1, 3, 2]" if routed else "[0, 2, 1]"
    tiles_axis = 1 if routed else 0
    lines = dequantize(f"{name}_tiles", name, f"{name}_scale", int4)
    lines += f"""
  {name}_turned = Transpose <perm = {perm}> ({name}_tiles)
  {name}_padded_inputs = Shape <start = -1> ({name}_turned)
  {name}_rows_unknown = Constant <value_ints = {"[0, -1]" if routed else "[-1]"}> ()
  {name}_flat = Concat <axis = 0> ({name}_rows_unknown, {name}_padded_inputs)
  {name}_padded = Reshape ({name}_turned, {name}_flat)
  {kind}_{part}_tile_count = Shape <start = {tiles_axis}, end = {tiles_axis + 1}> ({name})
  {kind}_{part}_all_rows = Mul ({kind}_{part}_tile_count, tile_rows)
"""
    if part == "gate_up":
        lines += f"  {name}_sizes = Concat <axis = 0> ({name}_all_rows, model_dim)\n"
    else:
        lines += f"""
  {name}_width = Div ({kind}_gate_up_all_rows, two_long)
  {name}_sizes = Concat <axis = 0> (model_dim, {name}_width)
"""
    return lines + f"  {name}_plain = Slice ({name}_padded, origin, {name}_sizes, last_two)\n"
