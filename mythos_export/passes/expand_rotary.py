"""Write RotaryEmbedding out in plain operators: TensorRT-RTX 1.7 cannot build its own layer with dynamic shapes.

Its builder ends with "producer is not shape_call" for the node of ONNX, in a Loop body or outside of one.
"""

from __future__ import annotations

import onnx_ir as ir

from mythos_export.kernels.text import DOMAIN, VERSION, parse_function

NAME = "rotary_embedding"
_BODY = """
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  minus_one = Constant <value_ints = [-1]> ()
  around_pairs = Constant <value_ints = [2, 4]> ()
  same_rows = Constant <value_ints = [0, 0, -1]> ()
  heads_scalar = Constant <value_int: int = @num_heads> ()
  heads = Reshape (heads_scalar, one)
  pairs_shape = Concat <axis = 0> (zero, zero, heads, minus_one, two)
  pairs = Reshape (x, pairs_shape)
  even, odd = Split <axis = 4, num_outputs = 2> (pairs)
  c = Unsqueeze (cos, around_pairs)
  s = Unsqueeze (sin, around_pairs)
  even_c = Mul (even, c)
  odd_s = Mul (odd, s)
  even_s = Mul (even, s)
  odd_c = Mul (odd, c)
  left = Sub (even_c, odd_s)
  right = Add (even_s, odd_c)
  turned = Concat <axis = 4> (left, right)
  out = Reshape (turned, same_rows)
"""


def expand_rotary(model: ir.Model) -> None:
    """x [B, T, H*P], cos and sin [B, T, P/2], adjacent pairs; leaves calls of a function, for `inline_functions`."""
    function = ir.serde.deserialize_function(parse_function(NAME, "x, cos, sin", _BODY, "num_heads"))
    for node in model.graph.all_nodes():
        if node.op_type == "RotaryEmbedding" and node.domain == "":
            heads = node.attributes["num_heads"]
            node.attributes.clear()
            node.attributes.add(heads)
            node.domain, node.op_type = DOMAIN, NAME
            model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
