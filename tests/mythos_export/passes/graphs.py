"""Small graphs with a Loop, written as text: what the passes are tried on."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]


def looped(body: str, before: str = "", inputs: str = "float[2,4] x", more: str = "") -> ir.Model:
    """A graph of one Loop over `h`, three times; `body` makes h_next of h, and sees what `before` made of x."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 23, "mythos" : 1]>
    graph ({inputs}) => (float[a,b] y) {more} {{
      most = Constant <value = int64 {{3}}> ()
      yes = Constant <value = bool {{1}}> ()
      {before}
      y = Loop (most, yes, x) <body = step (int64 i, bool on, float[2,4] h) => (bool on_next, float[2,4] h_next) {{
        on_next = Identity (on)
        {body}
      }}>
    }}
    """
    return ir.serde.deserialize_model(onnx.parser.parse_model(text))


def run(model: ir.Model, **inputs: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def body_of(model: ir.Model) -> ir.Graph:
    loop = next(node for node in model.graph if node.op_type == "Loop")
    return loop.attributes["body"].as_graph()


def kinds(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]
